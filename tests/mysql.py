"""A private MySQL, with the interface of `tests.mariadb.PrivateMariaDB`.

`LATCHKEY_TEST_SERVER=mysql` runs every test that needs a server on it (`make test-mysql`).
"""

import os
import subprocess
from functools import cache
from pathlib import Path

import asyncmy
import pytest

from tests.mariadb import PrivateMariaDB, as_root, find_program

SERVER = "LATCHKEY_TEST_SERVER"
PROGRAM = "LATCHKEY_TEST_MYSQLD"

MISSING = (
    f"mysqld not found: name it in {PROGRAM}; on Debian, .ci/get-mysql FOLDER brings one and prints its path"
)


def is_chosen() -> bool:
    """Return whether the tests that need a server run on MySQL."""
    name = os.environ.get(SERVER, "mariadb")
    if name not in {"mariadb", "mysql"}:
        pytest.fail(f"{SERVER} is mariadb or mysql, not {name}", pytrace=False)
    return name == "mysql"


@cache
def find_mysqld() -> Path | None:
    """Return the path of the server; a program of this name that belongs to MariaDB is ignored."""
    named = os.environ.get(PROGRAM)
    found = Path(named) if named else find_program("mysqld")
    if found is None or not found.exists():
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return None if "MariaDB" in version else found


def require() -> Path:
    """Return the path of the server; fail the test if it is missing, because MySQL was requested."""
    found = find_mysqld()
    if found is None:
        pytest.fail(MISSING, pytrace=False)
    return found


class PrivateMySQL(PrivateMariaDB):
    """One server, like its base class."""

    async def open_transactions(self, database: str | None = None) -> int:
        """Count the open transactions of all connections to a database.

        InnoDB's report omits transactions that only read.
        """
        root = await asyncmy.connect(unix_socket=str(self.socket), user="root", autocommit=True)
        try:
            async with root.cursor() as cursor:
                await cursor.execute(
                    "SELECT COUNT(*) FROM performance_schema.events_transactions_current t "
                    "JOIN performance_schema.threads USING (thread_id) "
                    "WHERE t.state = 'ACTIVE' AND processlist_db = %s",
                    (database or self.database,),
                )
                (count,) = await cursor.fetchone()
        finally:
            await root.ensure_closed()
        return int(count)

    def _installing(self) -> list[str]:
        return [
            str(require()),
            "--no-defaults",
            *as_root(),
            f"--datadir={self._data}",
            f"--tmpdir={self._temporary}",
            "--initialize-insecure",
        ]

    def _serving(self) -> list[str]:
        return [
            str(require()),
            "--no-defaults",
            "--skip-log-bin",
            "--skip-name-resolve",
            "--mysqlx=OFF",
            "--secure-file-priv=NULL",
        ]
