"""The module that pytest loads in each environment with Latchkey, and what it refuses."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import pytest_latchkey
from latchkey.service.testing.running_app import run_app
from latchkey.testing import NotEmptyError
from tests.service.testing.application import APP


def test_it_is_found_and_imports_nothing_of_latchkey() -> None:
    (entry,) = entry_points(group="pytest11", name="latchkey")
    script = "import sys, pytest_latchkey; sys.exit(bool({'latchkey', 'sqlalchemy', 'starlette'} & {*sys.modules}))"

    assert entry.value == "pytest_latchkey"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_workers_do_not_share_a_database_on_a_server(
    pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytestconfig, "workerinput", {}, raising=False)
    monkeypatch.delenv("LATCHKEY_TEST_DATABASE_URL", raising=False)
    assert pytest_latchkey.find_database(pytestconfig, tmp_path) == f"sqlite+aiosqlite:///{tmp_path}/tests.db"

    monkeypatch.setenv("LATCHKEY_TEST_DATABASE_URL", "mysql+asyncmy://team@127.0.0.1/tests")
    with pytest.raises(pytest.UsageError, match="in one process"):
        pytest_latchkey.find_database(pytestconfig, tmp_path)


def test_the_application_is_named(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATCHKEY_APP", APP)
    assert pytest_latchkey.find_app(pytestconfig) == APP

    monkeypatch.delenv("LATCHKEY_APP")
    with pytest.raises(pytest.UsageError, match="latchkey_app = orders"):
        pytest_latchkey.find_app(pytestconfig)


def test_a_database_with_tables_is_refused(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'tests.db'}"
    with closing(sqlite3.connect(tmp_path / "tests.db")) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")

    for _ in range(2):
        with pytest.raises(NotEmptyError, match="name an empty one"), run_app(APP, url, {}):
            raise AssertionError


def test_settings_of_the_developer_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATCHKEY_DATABASE_URL", "mysql+asyncmy://team@192.0.2.1/production")
    monkeypatch.setenv("LATCHKEY_READER_URL", "mysql+asyncmy://team@192.0.2.1/production")

    with run_app(APP, f"sqlite+aiosqlite:///{tmp_path / 'tests.db'}", {"TEAM_SETTING": "1"}) as running:
        assert running.client_without_key().get("/readyz").status_code == 200
        assert (os.environ["TEAM_SETTING"], "LATCHKEY_READER_URL" in os.environ) == ("1", False)
    assert os.environ["LATCHKEY_DATABASE_URL"].endswith("production")
