"""The private MariaDB of the tests, which are skipped without it, or fail if it is required."""

import os
from pathlib import Path

import pytest

from benchmarks.mariadb import (
    MISSING,
    PROGRAM,
    PrivateMariaDB,
    as_root,
    find_mariadbd,
    find_program,
)

__all__ = [
    "MISSING",
    "PROGRAM",
    "REQUIRE",
    "PrivateMariaDB",
    "as_root",
    "find_mariadbd",
    "find_program",
    "require_or_skip",
]

REQUIRE = "LATCHKEY_TEST_REQUIRE_MARIADB"


def require_or_skip() -> Path:
    """Return the path of the server; without it skip the test, or fail it if MariaDB is required."""
    found = find_mariadbd()
    if found:
        return found
    if os.environ.get(PROGRAM):
        pytest.fail(f"{PROGRAM}: there is no {os.environ[PROGRAM]}", pytrace=False)
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(MISSING, pytrace=False)
    pytest.skip(MISSING)
