"""A signed call is taken once, whatever it is signed with; the store is asked after the proof."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from models import Nonce
from service.authentication.query_signature import sign_query
from tests import wire
from tests.api import HeldKey, assert_problem, hold_key
from tests.requests import Answer, request

NONCE = "n0nce-0123456789abcdef"
BODY = b'{"email": "a@b", "name": "n"}'


async def send(
    app: Starlette,
    key: HeldKey,
    method: str = "GET",
    path: str = "/v1/me",
    *,
    nonce: str | None = NONCE,
    created: float | None = None,
) -> Answer:
    """Sign at the server's own clock, or at `created`, and send."""
    body = BODY if method == "POST" else b""
    query, proof = sign_query(
        key.secret,
        "",
        key.access_key,
        app.state.verifier.clock() if created is None else created,
        method=method,
        path=path,
        body=body,
        nonce=nonce,
    )
    return await request(app, method, path, query=query, headers={"secret": proof}, body=body or None)


async def reserved(app: Starlette) -> int:
    async with app.state.db.reader.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(Nonce))).scalar_one()


async def test_a_nonce_is_taken_once(app: Starlette, signer: HeldKey) -> None:
    first = await send(app, signer)
    second = await send(app, signer)

    assert first.status == 200
    assert_problem(second, 401, "replayed")


async def test_each_key_has_nonces_of_its_own(app: Starlette, signer: HeldKey) -> None:
    other = await hold_key(app, mode="signed")

    assert (await send(app, signer)).status == 200
    assert (await send(app, other)).status == 200


async def test_an_unsafe_call_without_a_nonce_is_taken_once_by_its_signature(
    app: Starlette, signer: HeldKey
) -> None:
    now = app.state.verifier.clock()
    answers = [await send(app, signer, "POST", "/v1/users", nonce=None, created=now) for _ in range(2)]

    assert answers[0].status == 201
    assert_problem(answers[1], 401, "replayed")


async def test_a_safe_call_without_a_nonce_reserves_nothing(app: Starlette, signer: HeldKey) -> None:
    now = app.state.verifier.clock()
    for _ in range(2):
        assert (await send(app, signer, nonce=None, created=now)).status == 200

    assert await reserved(app) == 0


@pytest.mark.parametrize("ahead_s", [-60, 0, 60], ids=["the oldest", "now", "dated ahead"])
async def test_a_nonce_outlives_its_signature(
    app: Starlette, signer: HeldKey, ahead_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from its own `created`: a call that is dated ahead is taken the longest."""
    now = int(app.state.verifier.clock())
    monkeypatch.setattr(app.state.verifier, "clock", lambda: now)
    assert (await send(app, signer, created=now + ahead_s)).status == 200

    async with app.state.db.reader.connect() as connection:
        expires_at = (await connection.execute(select(Nonce.expires_at))).scalar_one()
    last_moment = now + ahead_s + app.state.verifier.window_s
    assert expires_at.timestamp() > last_moment


async def test_nothing_is_reserved_before_the_proof_and_the_scope(app: Starlette, signer: HeldKey) -> None:
    """Else anybody could use up a partner's nonces."""
    narrow = await hold_key(app, mode="signed", scopes=[])
    forged = HeldKey(id=1, user_id=1, access_key=signer.access_key, secret=narrow.secret, mode="signed")

    assert_problem(await send(app, forged), 401, "unauthenticated")
    assert_problem(await send(app, narrow, "GET", "/v1/users"), 403, "scope_missing")
    assert await reserved(app) == 0


async def test_a_failed_endpoint_does_not_give_the_nonce_back(app: Starlette, signer: HeldKey) -> None:
    assert_problem(await send(app, signer, "GET", "/v1/users/999"), 404, "not_found")
    assert_problem(await send(app, signer, "GET", "/v1/users/999"), 401, "replayed")


async def test_of_many_copies_at_the_same_moment_one_gets_through(app: Starlette, signer: HeldKey) -> None:
    now = app.state.verifier.clock()
    answers = await asyncio.gather(*(send(app, signer, created=now) for _ in range(20)))

    assert Counter(answer.status for answer in answers) == {200: 1, 401: 19}


async def test_with_the_store_out_of_reach_no_call_is_taken(
    app: Starlette, signer: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_claim: object) -> None:
        raise OperationalError("INSERT", {}, Exception(2003, "Can't connect"))

    monkeypatch.setattr(app.state.replays, "reserve", fail)

    assert_problem(await send(app, signer), 503, "unavailable")


async def test_a_call_with_a_nonce_costs_one_round_trip_more(app: Starlette, signer: HeldKey) -> None:
    await send(app, signer, nonce="warming-up-0123456789")
    with wire.listening() as commands:
        await send(app, signer)

    assert len(commands) == 2
