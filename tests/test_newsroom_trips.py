"""The round trips in `examples/newsroom/README.md` are those of every route, on MariaDB and on MySQL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mysql
from tests.conftest import KEYRING
from tests.mariadb import PrivateMariaDB

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "newsroom"


def table() -> list[list[str]]:
    """Return the rows of the table: a call, its route, and the numbers for MariaDB and MySQL."""
    lines = (PACKAGE / "README.md").read_text().splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    return rows[1:]


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LATCHKEY_", "NEWSROOM_"))
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=kept | {"LATCHKEY_DATABASE_URL": url, "LATCHKEY_KEYRING": KEYRING, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.mariadb
def test_the_table_has_the_round_trips_of_every_route(mariadb: PrivateMariaDB) -> None:
    mariadb.create_database("newsroom_trips")
    url = mariadb.url_of("newsroom_trips")
    run(url, "-m", "newsroom", "migrate")

    done = run(url, "-m", "tests.newsroom_trips")

    found = json.loads(done.stdout)
    column = 3 if mysql.is_chosen() else 2
    assert found["missing"] == []
    assert [[row[0], row[1], int(row[column])] for row in table()] == found["counts"], done.stderr
