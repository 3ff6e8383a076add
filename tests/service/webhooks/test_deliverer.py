"""Events are delivered at least once and in their order, and no receiver delays another."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from starlette.applications import Starlette

from latchkey.models import Webhook
from latchkey.service.database.lock import alone
from latchkey.service.webhooks.schedule import LONGEST_PAUSE_S, Schedule
from tests.api import HeldKey, call
from tests.conftest import table_of
from tests.receiver import Receiver, receiving
from tests.service.webhooks.rows import deliveries, hold_webhook, wait_for_status, write

Delivering = Callable[[], AbstractAsyncContextManager[None]]


async def read(app: Starlette, id: int) -> Any:
    table = table_of(Webhook)
    async with app.state.db.reader.connect() as connection:
        return (await connection.execute(select(table).where(table.c.id == id))).one()


async def test_events_arrive_signed_and_in_order(
    app: Starlette, receiver: Receiver, delivering: Delivering
) -> None:
    secret = await hold_webhook(app, 1, receiver.url)
    events = await write(app, "key.created", "key.revoked", count=5)

    async with delivering():
        await wait_for_status(app, 1, "delivered")

    assert [one.event_id for one in receiver.requests] == [one.id for one in events]
    assert [one.body for one in receiver.requests] == [one.payload for one in events]
    assert [one.verified(secret)["data"] for one in receiver.requests][::2] == [
        {"place": place} for place in range(5)
    ]
    for row in await deliveries(app, 1):
        assert (row.attempts, row.response, row.error) == (1, 204, None)
        assert row.tried_at >= row.created_at


async def test_a_webhook_gets_only_what_it_listens_to(
    app: Starlette, receiver: Receiver, delivering: Delivering
) -> None:
    await hold_webhook(app, 1, receiver.url, events=["key.revoked", "user.created"])
    await hold_webhook(app, 2, receiver.url, enabled=False)
    await write(app, "key.created", "key.revoked", "user.deleted", "user.created")

    async with delivering():
        await wait_for_status(app, 1, "delivered")

    assert receiver.types == ["key.revoked", "user.created"]
    assert await deliveries(app, 2) == []


async def test_a_receiver_that_hangs_or_fails_delays_no_other(
    app: Starlette, receiver: Receiver, delivering: Delivering
) -> None:
    async with receiving() as hanging, receiving() as failing:
        hanging.delay_s = 60
        failing.answer = lambda _: 500
        await hold_webhook(app, 1, hanging.url)
        await hold_webhook(app, 2, failing.url)
        await hold_webhook(app, 3, receiver.url)
        await write(app, "key.created", count=10)

        async with delivering():
            await wait_for_status(app, 3, "delivered", within_s=4.5)

        assert len(hanging.requests) == 1
        assert {one.event_id for one in failing.requests} == {receiver.requests[0].event_id}
    assert [row.status for row in await deliveries(app, 1)] == ["pending"] * 10


async def test_a_failed_event_is_sent_again_before_the_next(
    app: Starlette, receiver: Receiver, delivering: Delivering
) -> None:
    answers = [500, None, 302, 204, 410, 200]
    receiver.answer = lambda _: answers.pop(0)
    await hold_webhook(app, 1, receiver.url)
    first, second = await write(app, "key.created", count=2)

    async with delivering():
        await wait_for_status(app, 1, "delivered")
        async with asyncio.timeout(10):
            while (await read(app, 1)).failures:  # of the webhook, which is written after the delivery
                await asyncio.sleep(0.01)

    assert [one.event_id for one in receiver.requests] == [first.id] * 4 + [second.id] * 2
    assert [row.attempts for row in await deliveries(app, 1)] == [4, 2]
    webhook = await read(app, 1)
    assert (webhook.failures, webhook.failing_since, webhook.retry_at) == (0, None, None)
    assert webhook.updated_at == webhook.created_at


async def test_events_are_given_up_and_delivered_again_on_request(
    app: Starlette, operator: HeldKey, receiver: Receiver, delivering: Delivering
) -> None:
    receiver.answer = lambda _: 503
    await hold_webhook(app, 1, receiver.url)
    events = await write(app, "key.created", count=3)
    async with app.state.db.engine.begin() as connection:
        long_ago = datetime.now(UTC) - timedelta(days=4)
        await connection.execute(update(Webhook).values(failures=9, failing_since=long_ago))

    async with delivering():
        await receiver.wait_for(1)
        async with asyncio.timeout(10):
            while [row.status for row in await deliveries(app, 1)] != ["dead", "pending", "pending"]:
                await asyncio.sleep(0.02)
    listed = await call(app, "GET", "/v1/webhooks/1/deliveries?status=dead", key=operator)
    receiver.answer = lambda _: 204
    again = await call(app, "POST", "/v1/webhooks/1/redeliver", key=operator, body={})
    async with delivering():
        await wait_for_status(app, 1, "delivered")

    [dead] = listed.json["data"]
    assert (dead["event_id"], dead["response"]) == (events[0].id, 503)
    assert dead["error"] == "the receiver answered with 503"
    assert again.json == {"deliveries": 1}
    assert [one.event_id for one in receiver.requests[1:]] == [one.id for one in events]


async def test_one_event_is_delivered_again_on_request(
    app: Starlette, operator: HeldKey, receiver: Receiver, delivering: Delivering
) -> None:
    await hold_webhook(app, 1, receiver.url)
    _, second = await write(app, "key.created", count=2)
    async with delivering():
        await wait_for_status(app, 1, "delivered")

    body = {"event_id": second.id}
    again = await call(app, "POST", "/v1/webhooks/1/redeliver", key=operator, body=body)
    none = await call(app, "POST", "/v1/webhooks/1/redeliver", key=operator, body={"event_id": "evt_0"})
    async with delivering():
        await wait_for_status(app, 1, "delivered")

    assert (again.json, none.json) == ({"deliveries": 1}, {"deliveries": 0})
    assert receiver.requests[-1].event_id == second.id
    assert len(receiver.requests) == 3


async def test_a_webhook_that_is_disabled_keeps_what_waits(
    app: Starlette, operator: HeldKey, receiver: Receiver, delivering: Delivering
) -> None:
    await hold_webhook(app, 1, receiver.url)
    await write(app, "key.created")
    await call(app, "PATCH", "/v1/webhooks/1", key=operator, body={"enabled": False})

    async with delivering():
        await asyncio.sleep(0.1)
        assert receiver.requests == []
        await call(app, "PATCH", "/v1/webhooks/1", key=operator, body={"enabled": True})
        await wait_for_status(app, 1, "delivered")


async def test_a_deleted_webhook_leaves_nothing(app: Starlette, operator: HeldKey) -> None:
    await hold_webhook(app, 1)
    await write(app, "key.created")

    await call(app, "DELETE", "/v1/webhooks/1", key=operator)

    assert await deliveries(app, 1) == []


async def test_a_secret_that_cannot_be_opened_is_a_failure(
    app: Starlette, receiver: Receiver, delivering: Delivering
) -> None:
    await hold_webhook(app, 1, receiver.url)
    async with app.state.db.engine.begin() as connection:
        await connection.execute(update(Webhook).values(sealed=b"nonsense"))
    await write(app, "key.created")

    async with delivering(), asyncio.timeout(10):
        while not (await deliveries(app, 1))[0].attempts:
            await asyncio.sleep(0.02)

    assert "cannot be decrypted" in (await deliveries(app, 1))[0].error
    assert receiver.requests == []


async def test_one_process_delivers_at_a_time(app: Starlette) -> None:
    async with alone(app.state.db.engine, "webhooks") as first:
        assert first is not None
        await first()
        async with alone(app.state.db.engine, "webhooks") as second:
            assert second is None
    async with alone(app.state.db.engine, "webhooks") as third:
        assert third is not None


def test_pauses_grow_to_six_hours_and_vary() -> None:
    schedule = Schedule(first_pause_s=5.0, give_up_s=60.0)
    for failures, pause_s in [
        (1, 5),
        (2, 10),
        (5, 80),
        (13, 20_480),
        (14, LONGEST_PAUSE_S),
        (10_000, LONGEST_PAUSE_S),
    ]:
        found = {schedule.pause_s(failures) for _ in range(50)}

        assert len(found) > 1
        assert all(0.75 * pause_s <= one <= 1.25 * pause_s for one in found)
