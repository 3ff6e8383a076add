"""A signed call is accepted once, in either form; the nonce is checked after the signature."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from latchkey.models import Nonce
from latchkey.service.authentication.nonces import NonceClaim
from latchkey.service.authentication.replay import SKEW_S, Replays
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.database.prepared import Prepared
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, hold_key
from tests.conftest import on_mariadb
from tests.requests import Answer, request

NONCE = "n0nce-0123456789abcdef"
BODY = b'{"email": "a@b", "name": "n"}'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A COMMIT may take seconds on a busy disk, and the calls that wait for it must not time out."""
    return msgspec.structs.replace(settings, pool_timeout_s=10.0)


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
        app.state.latchkey.verifier.clock() if created is None else created,
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
    now = app.state.latchkey.verifier.clock()
    answers = [await send(app, signer, "POST", "/v1/users", nonce=None, created=now) for _ in range(2)]

    assert answers[0].status == 201
    assert_problem(answers[1], 401, "replayed")


async def test_a_safe_call_without_a_nonce_reserves_nothing(app: Starlette, signer: HeldKey) -> None:
    now = app.state.latchkey.verifier.clock()
    for _ in range(2):
        assert (await send(app, signer, nonce=None, created=now)).status == 200

    assert await reserved(app) == 0


@pytest.mark.parametrize("ahead_s", [-60, 0, 60], ids=["the oldest", "now", "dated ahead"])
async def test_a_nonce_outlives_its_signature(
    app: Starlette, signer: HeldKey, ahead_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted from its own `created`: a call that is dated in the future is accepted the longest."""
    now = int(app.state.latchkey.verifier.clock())
    monkeypatch.setattr(app.state.latchkey.verifier, "clock", lambda: now)
    assert (await send(app, signer, created=now + ahead_s)).status == 200

    async with app.state.db.reader.connect() as connection:
        expires_at = (await connection.execute(select(Nonce.expires_at))).scalar_one()
    last_moment = now + ahead_s + app.state.latchkey.verifier.window_s
    assert expires_at.timestamp() > last_moment


async def test_nothing_is_reserved_before_the_proof_and_the_scope(app: Starlette, signer: HeldKey) -> None:
    """Otherwise anybody could use up a partner's nonces."""
    narrow = await hold_key(app, mode="signed", scopes=[])
    forged = HeldKey(id=1, user_id=1, access_key=signer.access_key, secret=narrow.secret, mode="signed")

    assert_problem(await send(app, forged), 401, "unauthenticated")
    assert_problem(await send(app, narrow, "GET", "/v1/users"), 403, "scope_missing")
    assert await reserved(app) == 0


async def test_a_failed_endpoint_does_not_give_the_nonce_back(app: Starlette, signer: HeldKey) -> None:
    assert_problem(await send(app, signer, "GET", "/v1/users/999"), 404, "not_found")
    assert_problem(await send(app, signer, "GET", "/v1/users/999"), 401, "replayed")


async def test_one_of_many_simultaneous_copies_is_accepted(app: Starlette, signer: HeldKey) -> None:
    now = app.state.latchkey.verifier.clock()
    answers = await asyncio.gather(*(send(app, signer, created=now) for _ in range(20)))

    assert Counter(answer.status for answer in answers) == {200: 1, 401: 19}


async def test_with_the_store_out_of_reach_no_call_is_taken(
    app: Starlette, signer: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_claim: object) -> None:
        raise OperationalError("INSERT", {}, Exception(2003, "Can't connect"))

    monkeypatch.setattr(app.state.latchkey.replays, "reserve", fail)

    assert_problem(await send(app, signer), 503, "unavailable")


async def test_a_call_with_a_nonce_costs_one_round_trip_more(app: Starlette, signer: HeldKey) -> None:
    await send(app, signer, nonce="warming-up-0123456789")
    with wire.listening() as commands:
        await send(app, signer)

    assert len(commands) == 2


async def send_many(app: Starlette, key: HeldKey, nonces: Iterable[str]) -> list[Answer]:
    """Send a call with each nonce, all at the same moment."""
    return await asyncio.gather(*(asyncio.create_task(send(app, key, nonce=one)) for one in nonces))


def nonces(number: int) -> list[str]:
    return [f"n0nce-0123456789-{place}" for place in range(number)]


async def test_calls_that_wait_reserve_together(app: Starlette, signer: HeldKey) -> None:
    """A COMMIT for each call would take most of the time of a busy worker."""
    await send(app, signer, nonce="warming-up-0123456789")

    with wire.listening() as commands:
        answers = await send_many(app, signer, nonces(20))

    inserts = [one for one in commands if one.startswith("INSERT")]
    on_sqlite = app.state.db.engine.dialect.name == "sqlite"
    assert [one.status for one in answers] == [200] * 20
    assert await reserved(app) == 21
    assert len(inserts) == 20 if on_sqlite else len(inserts) < 10


async def test_a_call_that_waits_beside_a_copy_is_accepted(app: Starlette, signer: HeldKey) -> None:
    """A used nonce makes the INSERT of all fail, and costs the others nothing."""
    first, used, *others = nonces(12)
    await send(app, signer, nonce=used)

    answers = await send_many(app, signer, [first, *others[:5], used, *others[5:], others[0]])

    assert Counter(answer.status for answer in answers) == {200: 11, 401: 2}
    assert_problem(answers[6], 401, "replayed")
    assert await reserved(app) == 12


@on_mariadb
async def test_a_conflict_with_another_worker_is_settled_one_by_one(
    app: Starlette, signer: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers with the same copies in different order wait for each other, and the server ends one of them."""

    async def lose(*_arguments: object) -> None:
        raise OperationalError("INSERT", {}, Exception(1213, "Deadlock found"))

    monkeypatch.setattr(Prepared, "insert_together", lose)

    assert [one.status for one in await send_many(app, signer, nonces(8))] == [200] * 8


@on_mariadb
async def test_when_the_store_fails_nobody_who_waits_is_taken_and_the_next_one_is(
    app: Starlette, signer: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object) -> None:
        raise OperationalError("INSERT", {}, Exception(2013, "Lost connection"))

    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "insert_together", fail)
        answers = await send_many(app, signer, nonces(8))

    refused = [one for one in answers if one.status != 200]
    assert len(refused) >= 6  # the first may have been reserved alone
    for one in refused:
        assert_problem(one, 503, "unavailable")
    assert (await send(app, signer, nonce="after-0123456789abcdef")).status == 200


async def test_a_caller_that_gives_up_fails_no_other_call(app: Starlette, signer: HeldKey) -> None:
    """The first call starts the reservation for the later ones."""
    replays: Replays = app.state.latchkey.replays
    claims = [NonceClaim.of_nonce(signer.access_key, one, int(time.time())) for one in nonces(6)]
    waiting = [asyncio.create_task(replays.reserve(one)) for one in claims]
    await asyncio.sleep(0)  # they all wait now
    waiting[0].cancel()
    waiting[3].cancel()

    found = await asyncio.gather(*waiting, return_exceptions=True)

    assert [one is True for one in found] == [False, True, True, False, True, True]
    assert all(isinstance(found[place], asyncio.CancelledError) for place in (0, 3))


async def test_closing_waits_for_what_is_being_reserved(app: Starlette, signer: HeldKey) -> None:
    """The call may have ended while its INSERT has not, and the engine is disposed next."""
    replays: Replays = app.state.latchkey.replays
    call = asyncio.create_task(
        replays.reserve(NonceClaim.of_nonce(signer.access_key, NONCE, int(time.time()))), name="call"
    )
    while not app.state.db.checked_out():
        await asyncio.sleep(0)
    call.cancel()

    await replays.close()

    assert app.state.db.checked_out() == 0
    assert await reserved(app) == 1


@pytest.mark.parametrize("late_s", [0, 1, 3600], ids=["at its end", "after its end", "long after"])
async def test_a_nonce_that_has_ended_is_refused_and_not_reserved(
    app: Starlette, signer: HeldKey, late_s: int
) -> None:
    """It may have been used and purged, so a reservation would prove nothing."""
    created = (
        int(app.state.latchkey.verifier.clock()) - app.state.latchkey.verifier.window_s - SKEW_S - late_s
    )

    assert not await app.state.latchkey.replays.reserve(
        NonceClaim.of_nonce(signer.access_key, NONCE, created)
    )
    assert await reserved(app) == 0


async def test_a_nonce_that_ends_while_it_is_being_reserved_is_refused(
    app: Starlette, signer: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may be so slow that the housekeeping deletes the row first."""
    replays: Replays = app.state.latchkey.replays
    created = int(app.state.latchkey.verifier.clock())
    run = Prepared.run_once

    async def run_slowly(*arguments: Any, **options: Any) -> Any:
        found = await run(*arguments, **options)
        replays.clock = lambda: created + app.state.latchkey.verifier.window_s + SKEW_S
        return found

    monkeypatch.setattr(Prepared, "run_once", run_slowly)

    assert not await replays.reserve(NonceClaim.of_nonce(signer.access_key, NONCE, created))
