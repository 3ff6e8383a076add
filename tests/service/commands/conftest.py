"""An environment without settings, and databases for the commands."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.commands import latchkey
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings
from tests.conftest import empty
from tests.service.commands.running import Run


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Return an environment without settings, in an empty folder, and close the database afterwards."""
    for name in list(os.environ):
        if name.startswith("LATCHKEY_") and not name.startswith("LATCHKEY_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield monkeypatch
    assert not SQLAlchemy().is_open


@pytest.fixture
def run() -> Run:
    """Run a command in this process."""
    return lambda *args, **kwargs: CliRunner().invoke(latchkey, args, prog_name="latchkey", **kwargs)


@pytest.fixture
def migrated(settings: Settings, environ: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Set the environment for a migrated, empty database."""
    environ.setenv("LATCHKEY_DATABASE_URL", settings.database_url)
    environ.setenv("LATCHKEY_KEYRING", settings.keyring or "")
    yield settings
    if "mysql" in settings.database_url:
        asyncio.run(empty(settings))


@pytest.fixture
def migrated_sqlite(sqlite_template: Path, environ: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Set the environment for a migrated, empty file."""
    (tmp_path / "latchkey.db").write_bytes(sqlite_template.read_bytes())
    environ.setenv("LATCHKEY_KEYRING", KeyRing.generate_text())
    return Settings.from_env(os.environ)
