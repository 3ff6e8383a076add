"""Stored answers: their content, their lifetime, and the callers that get them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from latchkey.models import IdempotencyKey, User
from latchkey.models.types import utc_in
from latchkey.service.settings import Settings
from tests.api import HeldKey, stored
from tests.conftest import table_of
from tests.service.idempotency.endpoints import (
    ANN,
    BOB,
    COPIES,
    is_replay,
    rows,
    send,
)


@pytest.mark.parametrize("seconds, status", [(0, 409), (60, 201)], ids=["it is over", "not yet"])
async def test_a_key_is_kept_for_a_day_and_then_forgotten(
    app: Starlette, operator: HeldKey, seconds: int, status: int
) -> None:
    await send(app, key=operator)
    ((_, _, _, _, _, expires_at),) = await rows(app)
    created_at = (await User.filter_by(email_key=ANN["email"]).one()).created_at
    assert 0 <= 24 * 60 * 60 - (expires_at - created_at).total_seconds() < 5
    async with app.state.db.engine.begin() as connection:
        await connection.execute(update(table_of(IdempotencyKey)).values(expires_at=utc_in(seconds)))

    answer = await send(app, key=operator)

    assert answer.status == status, "the email is taken when the call runs again"


async def test_a_key_that_is_over_is_taken_by_one_of_those_who_want_it(
    app: Starlette, operator: HeldKey
) -> None:
    await send(app, "/write", key=operator)
    async with app.state.db.engine.begin() as connection:
        await connection.execute(update(table_of(IdempotencyKey)).values(expires_at=utc_in(0)))

    async with asyncio.TaskGroup() as group:
        copies = [group.create_task(send(app, "/write", key=operator, body=BOB)) for _ in range(COPIES)]

    assert Counter(is_replay(one.result()) for one in copies) == {False: 1, True: COPIES - 1}
    assert len(await rows(app)) == 1


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_a_secret_is_stored_nowhere(
    app: Starlette, operator: HeldKey, settings: Settings, mode: str
) -> None:
    body = {"user_id": operator.user_id, "name": "n", "mode": mode, "scopes": ["users:read"]}
    created = await send(app, "/v1/keys", key=operator, body=body)
    rotate = f"/v1/keys/{created.json['access_key']}/rotate"
    rotated = await send(app, rotate, key=operator, body={"grace_s": 60})

    replays = [
        await send(app, "/v1/keys", key=operator, body=body),
        await send(app, rotate, key=operator, body={"grace_s": 60}),
    ]

    assert [(one.status, one.json["secret"]) for one in replays] == [(201, None), (200, None)]
    assert replays[0].json == created.json | {"secret": None}
    assert replays[0].headers["cache-control"] == "private, no-store"
    everything = repr(await stored(app.state.db.reader)).encode()
    if "sqlite" in settings.database_url:
        everything += whole_file(settings.database_url.partition("///")[2])
    assert created.json["access_key"].encode() in everything
    for answer in (created, rotated):
        assert answer.json["secret"].encode() not in everything


def whole_file(name: str) -> bytes:
    """Return the content of the file on disk, including the write-ahead log."""
    return b"".join(file.read_bytes() for file in Path(name).parent.glob(Path(name).name + "*"))


class Charge:
    """The charge of a limit."""

    def __init__(self) -> None:
        self.refunds = 0

    async def refund(self) -> None:
        self.refunds += 1


async def test_a_replay_gives_back_what_was_charged(app: Starlette, operator: HeldKey) -> None:
    charges = [Charge(), Charge(), Charge()]

    def charged(charge: Any) -> Callable[..., Any]:
        async def wrap(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": {"charge": charge}}, receive, send)

        return wrap

    for charge, body in zip(charges, [ANN, ANN, BOB], strict=True):
        await send(app, key=operator, body=body, wrap=charged(charge))

    assert [charge.refunds for charge in charges] == [0, 1, 0]


@pytest.mark.parametrize(
    "changes, known",
    [
        pytest.param({}, True, id="the same"),
        pytest.param({"method": "GET"}, False, id="a safe method"),
        pytest.param({"raw_path": b"/v1/keys"}, False, id="another path"),
        pytest.param({"headers": []}, False, id="no key"),
        pytest.param({"headers": [(b"idempotency-key", b"6")]}, False, id="another key"),
        pytest.param({"headers": [(b"idempotency-key", b"a,b")]}, False, id="no key that can be read"),
    ],
)
async def test_it_can_be_asked_whether_there_is_an_answer(
    app: Starlette, operator: HeldKey, changes: dict[str, Any], known: bool
) -> None:
    await send(app, key=operator)
    scope = {
        "user": type("", (), {"key": operator}),
        "method": "POST",
        "path": "/v1/users",
        "raw_path": b"/v1/users",
        "headers": [(b"idempotency-key", b'"5"')],
    }

    assert await app.state.latchkey.idempotency.has_answer({**scope, **changes}) is known
