"""Only the owner may access the files of an SQLite database."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from latchkey.service.commands.rows import work
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings

WRITE = text("CREATE TABLE IF NOT EXISTS t (x INTEGER)")


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()}


async def use(file: Path) -> dict[str, str]:
    """Write with one engine, read with another, and return the modes of the files meanwhile."""
    engines = create_engines(Settings(database_url=f"sqlite+aiosqlite:///{file}"))
    try:
        async with engines.writer.begin() as connection:
            await connection.execute(WRITE)
        async with engines.reader.connect() as connection:
            await connection.execute(text("SELECT * FROM t"))
            return modes(file.parent)
    finally:
        for engine in engines.all:
            await engine.dispose()


async def test_a_new_file_and_those_beside_it_are_private(tmp_path: Path) -> None:
    found = await use(tmp_path / "latchkey.db")

    assert found == dict.fromkeys(("latchkey.db", "latchkey.db-wal", "latchkey.db-shm"), "0o600")


@pytest.mark.parametrize(
    "before, after",
    [
        (0o644, 0o600),
        (0o666, 0o600),
        (0o604, 0o600),
        (0o755, 0o600),
        (0o640, 0o640),
        (0o660, 0o660),
        (0o600, 0o600),
    ],
    ids=oct,
)
async def test_a_file_that_is_there_is_closed_to_everybody_and_not_to_its_group(
    tmp_path: Path, before: int, after: int
) -> None:
    file = tmp_path / "latchkey.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(str(WRITE))
    file.chmod(before)

    assert set((await use(file)).values()) == {oct(after)}


async def test_a_read_only_file_does_not_become_writable(tmp_path: Path) -> None:
    file = tmp_path / "latchkey.db"
    await use(file)
    file.chmod(0o444)

    try:
        await use(file)
    except DBAPIError:
        assert os.geteuid(), "root may write to it"

    assert modes(tmp_path)["latchkey.db"] == "0o400"


def test_a_path_that_cannot_be_made_is_still_told_by_sqlite(tmp_path: Path) -> None:
    with pytest.raises(DBAPIError, match="unable to open database file"):
        work(use(tmp_path / "no folder" / "latchkey.db"))


async def test_the_locks_of_an_open_database_stay(tmp_path: Path) -> None:
    """Opening and closing the file would release every lock of this process on it."""
    file = tmp_path / "latchkey.db"
    engines = create_engines(Settings(database_url=f"sqlite+aiosqlite:///{file}"))
    another_process = (
        "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    )
    try:
        async with engines.writer.begin() as connection:
            await connection.execute(WRITE)
            async with engines.reader.connect() as another:
                await another.execute(text("SELECT 1"))
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", another_process, str(file)), stderr=asyncio.subprocess.PIPE
                )
                _, errors = await process.communicate()
    finally:
        for engine in engines.all:
            await engine.dispose()

    assert b"database is locked" in errors
