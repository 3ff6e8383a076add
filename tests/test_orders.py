"""The smaller package of `docs/your-own-package.md` behaves as described."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import KEYRING
from tests.mariadb import PrivateMariaDB

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "orders"


def environ(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LATCHKEY_", "ORDERS_"))
    }
    return kept | {"PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"} | more


def run(*arguments: str, folder: Path = PACKAGE, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ(**more),
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_tests_pass(tmp_path: Path) -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t"), "tests")

    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_its_models_and_its_migrations_agree_on_an_empty_file() -> None:
    done = run("-m", "latchkey.migrations.check", "--app", "orders.app:create_app")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.mariadb
def test_its_models_and_its_migrations_agree_on_the_server(mariadb: PrivateMariaDB) -> None:
    mariadb.create_database("orders_example")
    url: dict[str, Any] = {
        "LATCHKEY_DATABASE_URL": mariadb.url_of("orders_example"),
        "LATCHKEY_KEYRING": KEYRING,
    }

    migrated = run("-m", "orders", "migrate", **url)
    compared = run("-m", "orders", "migrate", "--check", **url)

    assert "from revision none to 0002 of the schema orders." in migrated.stderr
    assert (compared.returncode, compared.stderr) == (0, "")
