"""Housekeeping: what has expired goes away, a batch at a time, by one process at a time.

A table whose rows have an `expires_at` after which nobody looks at them joins `EXPIRING`.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy import Connection, Table, delete, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import Base, IdempotencyKey, LimitCounter, Nonce
from latchkey.models.query import identified
from latchkey.models.types import utc_now
from latchkey.service.database import SQLAlchemy

log = logging.getLogger("latchkey.housekeeping")

EXPIRING: tuple[type[Base], ...] = (IdempotencyKey, LimitCounter, Nonce)

BATCH_ROWS = 1000
PAUSE_S = 0.05  # between two batches, for the others
PURGE_EVERY_S = 5 * 60  # 5 minutes, half of it more or less

# The lock's name is the server's, not the database's: hashed, a name of any length fits into its 64 characters.
# MySQL 9.7 has no MD5().
_NAME = "CONCAT('latchkey purge ', LEFT(SHA2(DATABASE(), 256), 32))"
_LOCK = text(f"SELECT GET_LOCK({_NAME}, 0)")
_UNLOCK = text(f"SELECT RELEASE_LOCK({_NAME})")


def now() -> datetime:
    """Return the time of this process's clock."""
    return datetime.now(UTC)


async def purge(
    engine: AsyncEngine,
    *,
    clock: Callable[[], datetime] = now,
    tell: Callable[[str, int], None] = lambda _table, _rows: None,
) -> dict[str, int] | None:
    """Delete what has expired.

    Args:
        engine: the transactional one; each batch is a transaction of its own.
        clock: tells the time. A row goes when its end has passed by this clock and by the database's: nonces are
            dated by the clock of the process that took them, and one that goes too early could be used again.
        tell: is told after each batch the table, and how many of its rows are gone so far.

    Returns:
        how many rows went, by table; None when somebody else is purging.
    """
    async with alone(engine) as connection:
        if connection is None:
            return None
        return {
            model.__tablename__: await purge_table(connection, model, clock(), tell) for model in EXPIRING
        }


async def purge_table(
    connection: AsyncConnection, model: type[Base], moment: datetime, tell: Callable[[str, int], None]
) -> int:
    """Delete the rows of a model that ended before a moment; answers how many."""
    table = inspect(model).local_table
    assert isinstance(table, Table)  # noqa: S101 - what a declared model has
    ended = (table.c.expires_at <= utc_now()) & (table.c.expires_at <= moment)
    oldest = select(*table.primary_key).where(ended).order_by(table.c.expires_at).limit(BATCH_ROWS)
    gone = 0
    while True:
        rows = [tuple(row) for row in await connection.execute(oldest)]
        if rows:
            # Asked again, because a row that was over may have made way for a new one meanwhile.
            gone += (await connection.execute(delete(table).where(identified(model, rows), ended))).rowcount
        await connection.commit()
        if rows:
            tell(table.name, gone)
        if len(rows) < BATCH_ROWS:
            return gone
        await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def alone(engine: AsyncEngine) -> AsyncIterator[AsyncConnection | None]:
    """Give a connection with which nobody else purges meanwhile; None when somebody does.

    The lock is the connection's, so whoever dies loses it, and the connection is not the pool's, so that it is
    closed afterwards whatever happens. On a Galera cluster the lock is of one node; two that purge at once each
    find what the other has left. An SQLite file has one writer at a time and needs no other lock.
    """
    async with engine.connect() as connection:
        await connection.run_sync(Connection.detach)
        if engine.dialect.name == "sqlite":
            yield connection
        elif (await connection.execute(_LOCK)).scalar() == 1:
            yield connection
            await connection.execute(_UNLOCK)  # closing does it too, a moment later
        else:
            yield None


async def purge_for_ever(db: SQLAlchemy) -> None:
    """Purge every few minutes until cancelled, each process at a moment of its own."""
    while True:
        await asyncio.sleep(PURGE_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        try:
            gone = await purge(db.engine)
        except Exception:
            log.exception("what has expired could not be deleted; trying again")
        else:
            if gone and any(gone.values()):
                log.info("deleted what has expired: %s", gone)
