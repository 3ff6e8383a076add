"""Delete keys that ended long ago, with their secrets, counters and usage, in batches."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import ApiKey, KeySecret, LimitCounter, UsageCount, UsageSeries
from latchkey.models.audited import DELETED
from latchkey.models.journal import Change
from latchkey.models.limit_counter import subject_of
from latchkey.models.types import utc_in
from latchkey.models.usage import DAY, HOUR, MINUTE
from latchkey.service.database.recording import record_changes

BATCH_KEYS = 500
PAUSE_S = 0.05  # between two batches, so that other writers can proceed


async def purge_keys(
    connection: AsyncConnection, kept_days: int, moment: datetime, report: Callable[[str, int], None]
) -> int:
    """Delete keys that were revoked, or have expired, more than some days ago; return their number.

    A key to which a row of the application refers stays.

    Args:
        connection: each batch is a transaction on it.
        kept_days: the number of days for which an ended key is kept.
        moment: the time of this process; a key must have ended by this clock and by the database's.
        report: called after each batch with the table and the number of its rows deleted so far.
    """
    ended = ended_before(kept_days, moment)
    last, gone = 0, 0
    while True:
        statement = select(ApiKey.id).where(ApiKey.id > last, ended).order_by(ApiKey.id).limit(BATCH_KEYS)
        ids = list((await connection.execute(statement)).scalars())
        await connection.rollback()  # the locks of a key are not held during the pause
        if ids:
            last = ids[-1]
            gone += await delete_keys(connection, ids, ended)
            report(ApiKey.__tablename__, gone)
        if len(ids) < BATCH_KEYS:
            return gone
        await asyncio.sleep(PAUSE_S)


def ended_before(kept_days: int, moment: datetime) -> ColumnElement[bool]:
    """Return the condition for keys that ended more than some days before a time."""
    kept = timedelta(days=kept_days)
    is_past = [
        and_(column <= utc_in(-int(kept.total_seconds())), column <= moment - kept)
        for column in (ApiKey.updated_at, ApiKey.expires_at)
    ]
    return or_(and_(ApiKey.status == "revoked", is_past[0]), is_past[1])


async def delete_keys(connection: AsyncConnection, ids: Sequence[int], ended: ColumnElement[bool]) -> int:
    """Delete keys that have still ended, all at once; one by one if a row of the application refers to one of them."""
    try:
        # Locked, because a key may be extended meanwhile, and would lose its secrets.
        still = select(ApiKey.id, ApiKey.access_key).where(ApiKey.id.in_(ids), ended).with_for_update()
        rows = (await connection.execute(still)).all()
        found = [row.id for row in rows]
        await connection.execute(delete(KeySecret).where(KeySecret.api_key_id.in_(found)))
        subjects = [subject_of(one) for one in found]
        await connection.execute(delete(LimitCounter).where(LimitCounter.subject.in_(subjects)))
        of_keys = UsageCount.minutes.in_((MINUTE, HOUR, DAY)) & UsageCount.key_id.in_(found)
        await connection.execute(delete(UsageCount).where(of_keys))
        await connection.execute(delete(UsageSeries).where(UsageSeries.key_id.in_(found)))
        gone = (await connection.execute(delete(ApiKey).where(ApiKey.id.in_(found)))).rowcount
        await connection.run_sync(record_changes, [deletion_of(row.access_key) for row in rows])
        await connection.commit()
    except IntegrityError:
        await connection.rollback()
        if len(ids) == 1:
            return 0
        return sum([await delete_keys(connection, [one], ended) for one in ids])
    return gone


def deletion_of(access_key: str) -> Change:
    """Return the change of a key that is deleted, for the audit log."""
    return Change(noun=ApiKey.audit_noun, verb=DELETED, id=access_key, before={}, after=None)
