"""Each change of a key or a user writes its event in its own transaction, for the webhooks that listen."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.outbox.events import TYPES, new_event
from latchkey.service.outbox.listeners import listeners
from latchkey.service.outbox.writing import LARGEST_STATEMENT, write_events
from tests import mysql, wire
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import on_mariadb
from tests.service.webhooks.rows import deliveries, hold_webhook

USER = {"email": "ann@example.com", "name": "Ann", "external_id": "A1"}


async def events_of(app: Starlette, webhook_id: int = 1) -> list[dict[str, Any]]:
    return [msgspec.json.decode(bytes(row.payload)) for row in await deliveries(app, webhook_id)]


async def test_every_change_of_a_user_is_an_event(app: Starlette, operator: HeldKey) -> None:
    await hold_webhook(app, 1)
    await hold_webhook(app, 2, events=["user.deleted"])

    made = await call(app, "POST", "/v1/users", key=operator, body=USER)
    path = made.headers["location"]
    await call(app, "PATCH", path, key=operator, body={"name": "Anna", "meta": {"a": 1}})
    await call(app, "PATCH", path, key=operator, body={})
    await call(app, "PATCH", path, key=operator, body={"status": "blocked"})
    await call(app, "PATCH", path, key=operator, body={"status": "active"})
    await call(app, "DELETE", path, key=operator)

    data = {"id": made.json["id"], "external_id": "A1", "status": "active"}
    events = await events_of(app)
    assert [(one["type"], one["data"]) for one in events] == [
        ("user.created", data),
        ("user.changed", {**data, "changed": ["meta", "name"]}),
        ("user.blocked", {**data, "status": "blocked"}),
        ("user.unblocked", data),
        ("user.deleted", {**data, "status": "deleted"}),
    ]
    assert await events_of(app, 2) == events[-1:]
    for event in events:
        assert "ann@example.com" not in str(event).lower()


async def test_every_change_of_a_key_is_an_event(app: Starlette, operator: HeldKey) -> None:
    await hold_webhook(app, 1)
    new = {"user_id": operator.user_id, "name": "n", "mode": "signed", "scopes": []}

    made = await call(app, "POST", "/v1/keys", key=operator, body=new)
    path = made.headers["location"]
    rotated = await call(app, "POST", f"{path}/rotate", key=operator, body={"grace_s": 60})
    await call(app, "PATCH", path, key=operator, body={"name": "m"})
    await call(app, "DELETE", path, key=operator)
    await call(app, "DELETE", path, key=operator)

    events = await events_of(app)
    assert [one["type"] for one in events] == ["key.created", "key.rotated", "key.changed", "key.revoked"]
    assert [one["data"]["secret_version"] for one in events] == [1, 2, 2, 2]
    assert events[-1]["data"] == {
        "access_key": made.json["access_key"],
        "user_id": operator.user_id,
        "external_id": None,
        "status": "revoked",
        "secret_version": 2,
        "expires_at": None,
    }
    for secret in (made.json["secret"], rotated.json["secret"]):
        assert secret not in str(events)


async def test_what_is_refused_or_rolled_back_is_no_event(app: Starlette, operator: HeldKey) -> None:
    reader = await hold_key(app, scopes=["users:read"])
    await call(app, "POST", "/v1/users", key=operator, body=USER)
    await hold_webhook(app, 1)

    taken = await call(app, "POST", "/v1/users", key=operator, body={**USER, "external_id": "B"})
    assert_problem(taken, 409, "email_taken")
    assert_problem(await call(app, "POST", "/v1/users", key=reader, body=USER), 403, "scope_missing")

    assert await events_of(app) == []


async def test_a_webhook_hears_of_a_change_right_after_it_was_created(
    app: Starlette, operator: HeldKey
) -> None:
    listeners.note([])
    url = {"url": "https://receiver.example/"}
    webhook = (await call(app, "POST", "/v1/webhooks", key=operator, body=url)).json

    await call(app, "POST", "/v1/users", key=operator, body=USER)

    assert [one["type"] for one in await events_of(app, webhook["id"])] == ["user.created"]


async def test_many_events_are_written_by_few_statements(app: Starlette) -> None:
    await hold_webhook(app, 1)
    events = [new_event("key.deleted", {"place": place}) for place in range(2 * LARGEST_STATEMENT + 1)]

    async with app.state.db.engine.begin() as connection:
        with wire.listening() as commands:
            written = await connection.run_sync(write_events, events)

    assert written == len(events)
    assert len([one for one in commands if "INSERT" in str(one).upper()]) == 3
    assert [row.event_id for row in await deliveries(app, 1)] == [event.id for event in events]


@on_mariadb
@pytest.mark.parametrize(
    "filters, trips",
    [
        pytest.param([], 4, id="nobody listens"),
        pytest.param([["key.created"]], 4, id="nobody listens to the type"),
        pytest.param([["user.created"]], 5, id="one listens"),
        pytest.param([[], ["user.created"], []], 5, id="three listen"),
    ],
)
async def test_a_user_is_created_in_four_round_trips_and_its_event_in_one_more(
    app: Starlette, operator: HeldKey, filters: list[list[str]], trips: int
) -> None:
    for place, events in enumerate(filters, start=1):
        await hold_webhook(app, place, events=events)
    await call(
        app,
        "POST",
        "/v1/users",
        key=operator,
        body={**USER, "email": "first@example.com", "external_id": "F"},
    )
    listeners.reset()
    await listeners.read(app.state.db.reader)

    with wire.listening() as commands:
        answer = await call(app, "POST", "/v1/users", key=operator, body=USER)

    assert answer.status == 201
    assert len(commands) == trips + int(mysql.is_chosen()), commands


def test_the_types_are_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()

    assert {
        line.split("`")[1] for line in page.splitlines() if re.match(r"\| `(key|user|quota)\.", line)
    } == TYPES
