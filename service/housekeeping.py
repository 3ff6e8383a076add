"""Housekeeping: what has expired goes away, a batch at a time, by one process at a time.

A table whose rows have an `expires_at` after which nobody looks at them joins `EXPIRING`.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Table, delete, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import Base, IdempotencyKey, LimitCounter, Nonce
from latchkey.models.query import identified
from latchkey.models.types import utc_now
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.lock import locked

log = logging.getLogger("latchkey.housekeeping")

EXPIRING: tuple[type[Base], ...] = (IdempotencyKey, LimitCounter, Nonce)

BATCH_ROWS = 1000
PAUSE_S = 0.05  # between two batches, for the others
PURGE_EVERY_S = 5 * 60  # 5 minutes, half of it more or less


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

    On a Galera cluster two nodes may purge at once: each then finds what the other has left.

    Args:
        engine: the transactional one; each batch is a transaction of its own.
        clock: tells the time. A row goes when its end has passed by this clock and by the database's: nonces are
            dated by the clock of the process that took them, and one that goes too early could be used again.
        tell: is told after each batch the table, and how many of its rows are gone so far.

    Returns:
        how many rows went, by table; None when somebody else is purging.
    """
    async with locked(engine, "purge") as connection:
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
