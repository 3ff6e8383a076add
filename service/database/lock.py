"""A lock of the whole database, for work that only one process may do at a time."""

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.service.database import sqlite

# The name is global on the server: hashed, a database name of any length fits into its 64 characters. MySQL 9.7 has
# no MD5().
_NAME = "CONCAT('latchkey ', :purpose, ' ', LEFT(SHA2(DATABASE(), 256), 32))"
_LOCK = text(f"SELECT GET_LOCK({_NAME}, :wait_s)")
_WAIT_FOR_LOCKS = text("SET innodb_lock_wait_timeout = DEFAULT, lock_wait_timeout = DEFAULT")
_ALIVE = text("SELECT 1")
_UNLOCK = text(f"SELECT RELEASE_LOCK({_NAME})")


@asynccontextmanager
async def locked(
    engine: AsyncEngine, purpose: str, *, wait_s: int = 0, report: Callable[[], None] = lambda: None
) -> AsyncIterator[AsyncConnection | None]:
    """Yield a connection that holds the lock; None when another process holds it.

    The lock belongs to the connection, so a process that dies loses it. The connection does not belong to the pool, so it
    is always closed afterwards. On a Galera cluster the lock is valid on one node only. An SQLite file has one writer at a
    time and needs no other lock: there, each transaction on the connection waits for other writers.

    Args:
        engine: of the database.
        purpose: the kind of work, at most 20 letters.
        wait_s: how long to wait for the lock, in seconds.
        report: called once before a wait.
    """
    if engine.dialect.name == "sqlite":
        async with _detached_file(engine) as (connection, driver):
            if wait_s:
                await _wait_for_writers(connection, driver, wait_s, report)
            yield connection
        return
    async with engine.connect() as connection:
        driver = await _detach(connection)
        driver.answer_timeout_s = None  # work under the lock, and the wait for it, may take long
        try:
            await connection.execute(_WAIT_FOR_LOCKS)
            taken = await _take(connection, purpose, 0)
            if not taken and wait_s:
                report()
                taken = await _take(connection, purpose, wait_s)
            if not taken:
                yield None
                return
            await connection.commit()
            yield connection
            await connection.execute(
                _UNLOCK, {"purpose": purpose}
            )  # closing the connection would do this a moment later
        finally:
            if connection.invalidated:  # SQLAlchemy drops a detached connection without closing it
                driver.close()


@asynccontextmanager
async def alone(
    engine: AsyncEngine, purpose: str
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]] | None]:
    """Yield a function that raises an error when the lock was lost; None when another process holds it.

    For work that lasts as long as the process. On an SQLite file, other writers do not wait: the lock is on a file beside it,
    which the system releases when the process ends.

    Args:
        engine: of the database.
        purpose: the kind of work, at most 20 letters.
    """
    if engine.dialect.name == "sqlite":
        with _locked_file(f"{engine.url.database}-{purpose}") as is_locked:
            yield _never_lost if is_locked else None
        return
    async with locked(engine, purpose) as connection:
        if connection is None:
            yield None
            return

        async def require() -> None:
            await connection.execute(_ALIVE)  # the lock ends with its connection
            await connection.rollback()

        yield require


async def _never_lost() -> None:
    """Return: the lock of a file lasts until it is closed."""


@contextmanager
def _locked_file(path: str) -> Iterator[bool]:
    """Lock a file, which is created if it does not exist; the value is whether no other process has locked it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(file)


async def _detach(connection: AsyncConnection) -> Any:
    """Take a connection out of its pool, and return the driver's."""
    driver = (await connection.get_raw_connection()).driver_connection
    await connection.run_sync(Connection.detach)
    return driver


@asynccontextmanager
async def _detached_file(engine: AsyncEngine) -> AsyncIterator[tuple[AsyncConnection, Any]]:
    """Yield a connection to an SQLite file outside the pool, and the driver's; its thread always ends afterwards.

    SQLAlchemy drops a detached connection without closing it when a cancellation invalidates it, also while it is closed.
    """
    driver: Any = None
    try:
        async with engine.connect() as connection:
            driver = await _detach(connection)
            yield connection, driver
    finally:
        if driver is not None:
            driver.stop()


async def _take(connection: AsyncConnection, purpose: str, wait_s: int) -> bool:
    taken = await connection.execute(_LOCK, {"purpose": purpose, "wait_s": wait_s})
    return bool(taken.scalar() == 1)


async def _wait_for_writers(
    connection: AsyncConnection, driver: Any, wait_s: int, report: Callable[[], None]
) -> None:
    """Make transactions on an SQLite connection wait for other writers; call `report` if one is active now."""
    await driver.execute("PRAGMA busy_timeout = 0")
    try:
        async with connection.begin():
            pass
    except OperationalError as error:
        if not sqlite.is_busy(error.orig):
            raise
        report()
    await driver.execute(f"PRAGMA busy_timeout = {1000 * wait_s}")
