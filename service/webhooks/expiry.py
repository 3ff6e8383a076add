"""Events that only time causes: a key will expire soon, or has expired.

A mark for each type states until when its events were written. It moves in the transaction of the events, so that each is
written once.
"""

from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Connection, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import ApiKey, EventMark
from latchkey.service import clock
from latchkey.service.outbox.events import KEY_FIELDS, new_event
from latchkey.service.outbox.listeners import Listeners
from latchkey.service.outbox.writing import write_events

EXPIRING_BEFORE = timedelta(days=7)
AHEAD = {"key.expiring": EXPIRING_BEFORE, "key.expired": timedelta()}
BATCH_KEYS = 500

_KEYS, _MARKS = cast("Table", ApiKey.__table__), cast("Table", EventMark.__table__)


async def write_due(engine: AsyncEngine, listeners: Listeners) -> None:
    """Write the events of the keys whose time has come since the last call; the first call only sets the marks."""
    for name, ahead in AHEAD.items():
        is_listened = listeners.may_listen(name)
        is_done = False
        while not is_done:
            async with engine.begin() as connection:
                is_done = await connection.run_sync(_write_batch, name, ahead, is_listened)


def _write_batch(connection: Connection, type: str, ahead: timedelta, is_listened: bool) -> bool:
    """Write the events of some keys and move the mark; return whether there are no more."""
    until = clock.now() + ahead
    of_type = _MARKS.c.type == type
    mark = connection.execute(select(_MARKS.c.written_until).where(of_type).with_for_update()).scalar()
    if mark is None:
        connection.execute(insert(_MARKS).values(type=type, written_until=until))
        return True
    between = (_KEYS.c.expires_at > mark, _KEYS.c.expires_at <= until, _KEYS.c.status == "active")
    is_last = True
    if is_listened:
        first_left = (
            select(_KEYS.c.expires_at)
            .where(*between)
            .order_by(_KEYS.c.expires_at)
            .offset(BATCH_KEYS)
            .limit(1)
        )
        left = connection.execute(first_left).scalar()
        if left is not None:  # all keys with the same end belong to this batch
            is_last, until = False, left
        due = select(*(_KEYS.c[name] for name in KEY_FIELDS)).where(
            _KEYS.c.expires_at > mark, _KEYS.c.expires_at <= until, _KEYS.c.status == "active"
        )
        rows: list[Any] = list(connection.execute(due.order_by(_KEYS.c.expires_at, _KEYS.c.id)).mappings())
        write_events(connection, (new_event(type, dict(row)) for row in rows))
    if until > mark:
        connection.execute(update(_MARKS).where(of_type).values(written_until=until))
    return is_last
