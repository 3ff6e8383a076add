"""Housekeeping: delete expired rows, in batches, in one process at a time.

To include a table whose rows are obsolete after their `expires_at`, add it to `EXPIRING`.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Table, delete, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import (
    ApiKey,
    Base,
    IdempotencyKey,
    LimitCounter,
    Nonce,
    UsageCount,
    UsageFlush,
    WebhookDelivery,
)
from latchkey.models.lookups import identified
from latchkey.models.types import utc_now
from latchkey.service.clock import now
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.conflicts import log_failure
from latchkey.service.database.lock import locked
from latchkey.service.ended_keys import purge_keys
from latchkey.service.usage.rollup import Ages, roll_up

log = logging.getLogger("latchkey.housekeeping")

EXPIRING: tuple[type[Base], ...] = (IdempotencyKey, LimitCounter, Nonce, UsageFlush, WebhookDelivery)

BATCH_ROWS = 1000
PAUSE_S = 0.05  # between two batches, so that other writers can proceed
PURGE_EVERY_S = 5 * 60  # 5 minutes, varied by up to a half
SHARE_WITH_SCANS = 1 / 12  # of the purges; looking for ended keys and old usage reads whole tables


async def purge(
    engine: AsyncEngine,
    *,
    clock: Callable[[], datetime] = now,
    report: Callable[[str, int], None] = lambda _table, _rows: None,
    keys_kept_days: int | None = None,
    usage_ages: Ages | None = None,
) -> dict[str, int] | None:
    """Delete expired rows and keys that ended long ago, and roll up old usage.

    On a Galera cluster two nodes may purge at the same time; each then deletes rows that the other has not.

    Args:
        engine: the transactional engine; each batch is a transaction.
        clock: returns the time. A row is deleted when it has expired by this clock and by the database's: nonces are
            dated by the clock of their process, and a nonce that is deleted too early could be used again.
        report: called after each batch with the table and the number of its rows deleted so far.
        keys_kept_days: delete keys that ended more than so many days ago; None keeps them all.
        usage_ages: roll up counts that are older; None leaves them.

    Returns:
        the number of deleted rows, by table; None when another process is purging.
    """
    async with locked(engine, "purge") as connection:
        if connection is None:
            return None
        gone = {
            model.__tablename__: await purge_table(connection, model, clock(), report) for model in EXPIRING
        }
        if keys_kept_days is not None:
            gone[ApiKey.__tablename__] = await purge_keys(connection, keys_kept_days, clock(), report)
        if usage_ages is not None:
            gone[UsageCount.__tablename__] = await roll_up(connection, usage_ages, clock(), report)
        return gone


async def purge_table(
    connection: AsyncConnection, model: type[Base], moment: datetime, report: Callable[[str, int], None]
) -> int:
    """Delete the rows of a model that expired before a time; return their number."""
    table = inspect(model).local_table
    assert isinstance(table, Table)  # noqa: S101 - what a declared model has
    ended = (table.c.expires_at <= utc_now()) & (table.c.expires_at <= moment)
    oldest = select(*table.primary_key).where(ended).order_by(table.c.expires_at).limit(BATCH_ROWS)
    gone = 0
    while True:
        rows = [tuple(row) for row in await connection.execute(oldest)]
        if rows:
            # The condition is repeated, because an expired row may have been replaced by a new one meanwhile.
            gone += (await connection.execute(delete(table).where(identified(model, rows), ended))).rowcount
        await connection.commit()
        if rows:
            report(table.name, gone)
        if len(rows) < BATCH_ROWS:
            return gone
        await asyncio.sleep(PAUSE_S)


async def purge_for_ever(db: SQLAlchemy, keys_kept_days: int, usage_ages: Ages) -> None:
    """Purge every few minutes until cancelled, and ended keys and old usage about once an hour.

    Processes do so at different times.
    """
    while True:
        await asyncio.sleep(PURGE_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        try:
            if random.random() < SHARE_WITH_SCANS:  # noqa: S311 - no secret
                gone = await purge(db.engine, keys_kept_days=keys_kept_days, usage_ages=usage_ages)
            else:
                gone = await purge(db.engine)
        except Exception as error:  # noqa: BLE001 - it is logged, and tried again
            log_failure(log, "expired rows could not be deleted; trying again", error)
        else:
            if gone and any(gone.values()):
                log.info("deleted expired rows: %s", gone)
