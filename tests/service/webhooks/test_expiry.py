"""A key that will expire soon, or has expired, is reported once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update
from starlette.applications import Starlette

from latchkey.models import ApiKey, EventMark
from latchkey.service.outbox.listeners import Listeners
from latchkey.service.webhooks import expiry
from latchkey.service.webhooks.expiry import write_due
from tests.api import hold_key
from tests.conftest import table_of
from tests.service.webhooks.rows import deliveries, hold_webhook

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def move_marks(app: Starlette, by: timedelta) -> None:
    marks = table_of(EventMark)
    async with app.state.db.engine.begin() as connection:
        for row in (await connection.execute(select(marks))).all():
            earlier = update(marks).where(marks.c.type == row.type)
            await connection.execute(earlier.values(written_until=row.written_until - by))


async def keys_by_type(app: Starlette) -> list[tuple[str, Any]]:
    found = []
    for row in await deliveries(app, 1):
        event = msgspec.json.decode(bytes(row.payload))
        assert event["type"] == row.type
        found.append((row.type, event["data"]["access_key"]))
    return found


async def test_each_end_is_reported_once(app: Starlette) -> None:
    await hold_webhook(app, 1, events=["key.expiring", "key.expired"])
    now = datetime.now(UTC)
    await write_due(app.state.db.engine, Listeners())
    ended = await hold_key(app, expires_at=now - HOUR)
    await hold_key(app, expires_at=now - HOUR, status="revoked")
    await hold_key(app, expires_at=now - 3 * DAY)
    soon = await hold_key(app, expires_at=now + 7 * DAY - HOUR)
    await hold_key(app, expires_at=now + 8 * DAY)
    await hold_key(app)
    assert await deliveries(app, 1) == []

    await move_marks(app, 2 * HOUR)
    await write_due(app.state.db.engine, Listeners())
    await write_due(app.state.db.engine, Listeners())

    assert await keys_by_type(app) == [("key.expiring", soon.access_key), ("key.expired", ended.access_key)]


async def test_a_long_absence_is_made_up_in_batches(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "BATCH_KEYS", 2)
    await hold_webhook(app, 1, events=["key.expired"])
    await write_due(app.state.db.engine, Listeners())
    now = datetime.now(UTC)
    keys = [await hold_key(app, expires_at=now - HOUR + timedelta(minutes=place // 2)) for place in range(7)]
    await hold_key(app, expires_at=None)

    await move_marks(app, 2 * HOUR)
    await write_due(app.state.db.engine, Listeners())

    assert await keys_by_type(app) == [("key.expired", key.access_key) for key in keys]


async def test_nothing_is_made_up_for_a_webhook_that_comes_later(app: Starlette) -> None:
    await write_due(app.state.db.engine, Listeners())
    await hold_key(app, expires_at=datetime.now(UTC) - HOUR)
    await move_marks(app, 2 * HOUR)
    nobody = Listeners()
    nobody.note([])

    await write_due(app.state.db.engine, nobody)
    await hold_webhook(app, 1)
    await write_due(app.state.db.engine, Listeners())

    assert await deliveries(app, 1) == []
    async with app.state.db.reader.connect() as connection:
        assert len((await connection.execute(select(ApiKey.id))).all()) == 1
