"""A lock of the whole database, for work that one process does at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# The name belongs to the server, not to the database: hashed, a name of any length fits into its 64 characters.
# MySQL 9.7 has no MD5().
_NAME = "CONCAT('latchkey ', :purpose, ' ', LEFT(SHA2(DATABASE(), 256), 32))"
_LOCK = text(f"SELECT GET_LOCK({_NAME}, :wait_s)")
_UNLOCK = text(f"SELECT RELEASE_LOCK({_NAME})")


@asynccontextmanager
async def locked(
    engine: AsyncEngine, purpose: str, *, wait_s: int = 0
) -> AsyncIterator[AsyncConnection | None]:
    """Give a connection that holds the lock; None when another process has it.

    The lock is the connection's, so a process that dies loses it. The connection is not the pool's, so that it is
    closed afterwards whatever happens. On a Galera cluster the lock is of one node. An SQLite file has one writer at
    a time and needs no other lock.

    Args:
        engine: of the database.
        purpose: at most 20 letters, which tell one kind of work from another.
        wait_s: how long to wait for it, in seconds.
    """
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await connection.run_sync(Connection.detach)
        if engine.dialect.name == "sqlite":
            yield connection
            return
        driver.answer_timeout_s = None  # what needs a lock may take long, and may wait for it
        try:
            taken = await connection.execute(_LOCK, {"purpose": purpose, "wait_s": wait_s})
            if taken.scalar() != 1:
                yield None
                return
            await connection.commit()
            yield connection
            await connection.execute(_UNLOCK, {"purpose": purpose})  # closing does it too, a moment later
        finally:
            if connection.invalidated:  # SQLAlchemy drops one that is detached, and closes it not
                driver.close()
