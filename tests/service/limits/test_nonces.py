"""A key at its limit leaves no nonces behind."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from sqlalchemy import func, select
from starlette.applications import Starlette

from latchkey.models import Nonce
from latchkey.service.operation import Operation, route
from tests import wire
from tests.api import HeldKey, assert_problem, hold_key
from tests.conftest import on_mariadb
from tests.service.authentication.test_replay import nonces, send
from tests.service.limits.rules import limit, limit_owner, per_day


class Done(msgspec.Struct):
    done: bool


async def work() -> Done:
    """Work."""
    return Done(done=True)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("GET", "/job", work, any_key=True),
        route("POST", "/job", work, any_key=True),
    )


async def reserved(app: Starlette) -> int:
    async with app.state.db.reader.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(Nonce))).scalar_one()


async def limited(app: Starlette, kind: str) -> HeldKey:
    """Return a key that may make two calls."""
    key = await hold_key(
        app,
        mode="signed",
        scopes=[],
        email="limited@example.com",
        limits=[limit(limit=2)] if kind == "limit" else [],
        quota=per_day(2) if kind == "quota" else None,
    )
    if kind == "owner":
        await limit_owner(app, key.user_id, limit(limit=2))
    return key


@pytest.mark.parametrize("kind", ["limit", "quota", "owner"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_call_reserves_no_nonce(app: Starlette, kind: str, method: str) -> None:
    key = await limited(app, kind)

    answers = [await send(app, key, method, "/job", nonce=one) for one in nonces(6)]

    assert [one.status for one in answers] == [200, 200, 429, 429, 429, 429]
    assert await reserved(app) == 2


async def test_a_replay_is_not_charged(app: Starlette) -> None:
    key = await limited(app, "limit")
    first, second, _ = nonces(3)

    assert (await send(app, key, "POST", "/job", nonce=first)).status == 200
    for _ in range(3):
        assert_problem(await send(app, key, "POST", "/job", nonce=first), 401, "replayed")

    assert (await send(app, key, "POST", "/job", nonce=second)).status == 200


async def test_when_the_limit_eases_calls_are_taken_again(app: Starlette) -> None:
    key = await hold_key(app, mode="signed", scopes=[], limits=[limit(limit=1, window_s=1)])
    first, second, third = nonces(3)
    assert (await send(app, key, "GET", "/job", nonce=first)).status == 200
    assert_problem(await send(app, key, "GET", "/job", nonce=second), 429, "rate_limited")

    await asyncio.sleep(1.1)

    assert (await send(app, key, "GET", "/job", nonce=third)).status == 200


@on_mariadb
@pytest.mark.parametrize("method, commands_each", [("GET", 4), ("POST", 5)])
async def test_a_limited_signed_call_costs_so_many_commands(
    app: Starlette, method: str, commands_each: int
) -> None:
    """The key; for an unsafe call, the counter; the nonce; the counter, read and written."""
    key = await hold_key(app, mode="signed", scopes=[], limits=[limit(limit=100)])
    first, second = nonces(2)
    await send(app, key, method, "/job", nonce=first)

    with wire.listening() as commands:
        answer = await send(app, key, method, "/job", nonce=second)

    assert answer.status == 200
    assert len(commands) == commands_each, commands
