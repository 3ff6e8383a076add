"""The key cache in the application: the cost of a call with a known key, and that every change takes effect at once."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from latchkey.models import ApiKey, KeySecret, User, Watched
from latchkey.service.authentication.wire.credentials import new_access_key, new_secret
from latchkey.service.lifespan import lifespan
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, rotate_held
from tests.conftest import assert_nothing_left, on_mariadb
from tests.requests import converse
from tests.service.test_round_trips import TRIPS, Trip
from tests.sessions.storm import cancel_at_suspension

PARTNER = "partner@example.com"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, key_cache_ttl_s=3600)


@pytest.fixture(params=["bearer", "signed"])
async def partner(app: Starlette, request: pytest.FixtureRequest) -> HeldKey:
    """Return a key of each mode, which is in the cache."""
    partner = await hold_key(app, email=PARTNER, mode=request.param)
    assert await status(app, partner) == (200, None)
    return partner


async def status(app: Starlette, key: HeldKey) -> tuple[int | None, str | None]:
    """Read the caller; return the status, and the problem's code."""
    answer = await call(app, "GET", "/v1/me", key=key)
    return answer.status, answer.json.get("code")


# ---------------------------------------------------------------------- cost


@on_mariadb
@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
async def test_a_known_key_spares_a_read_its_round_trip_and_no_other(
    app: Starlette, partner: HeldKey, trip: Trip
) -> None:
    """Only reads are spared: a call with an effect is checked against the database. A notification costs nothing."""
    other = await hold_key(app, email="other@example.com", scopes=["users:read"])
    method, _, path = trip.operation.partition(" ")
    mine = await hold_key(app, email=PARTNER, scopes=["users:read"])
    key = mine if path.startswith("/v1/me/") else other
    target = path.format(id=other.user_id, access_key=key.access_key, code="conflict", name="orders:x")
    target += trip.query.replace(PARTNER, "other@example.com")
    body = trip.body_about(other.user_id)
    # the pools have their connections
    await call(app, "POST", "/v1/users", key=partner, body={"email": "first@example.com", "name": "First"})

    with wire.listening() as commands:
        answer = await call(app, method, target, key=partner, body=body, headers=trip.headers)

    reservation = int(partner.mode == "signed" and method != "GET" and path != "/v1/leaks/github")
    assert answer.status == trip.status, answer.body
    spared = int(path.startswith(("/v1/", "/metrics")) and method == "GET")
    assert len(commands) == trip.commands + reservation - spared, commands


async def test_a_known_key_takes_no_connection(app: Starlette, partner: HeldKey) -> None:
    checked_in = app.state.db.engine.pool.checkedin(), app.state.db.reader.pool.checkedin()
    with wire.listening() as commands:
        assert await status(app, partner) == (200, None)

    assert commands == []
    assert (app.state.db.engine.pool.checkedin(), app.state.db.reader.pool.checkedin()) == checked_in


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_an_unknown_key_is_asked_for_once(app: Starlette, operator: HeldKey, mode: str) -> None:
    await status(app, operator)  # the pool has its connection
    nobody = HeldKey(id=0, user_id=0, access_key=new_access_key("lk"), secret=new_secret("lk"), mode=mode)
    with wire.listening() as commands:
        answers = [await status(app, nobody) for _ in range(5)]

    assert answers == [(401, "unauthenticated")] * 5
    assert len(commands) == 1


@pytest.mark.parametrize("known", [True, False], ids=["a key", "an unknown key"])
async def test_calls_at_once_with_one_key_make_one_query(app: Starlette, known: bool) -> None:
    key = await hold_key(app)
    if not known:
        key = msgspec.structs.replace(key, secret=new_secret("lk"))
    with wire.listening() as commands:
        answers = await asyncio.gather(*(status(app, key) for _ in range(20)))

    assert {answer[0] for answer in answers} == {200 if known else 401}
    assert len(commands) == 1


# ---------------------------------------------------------------------- changes


async def revoke(app: Starlette, partner: HeldKey, operator: HeldKey) -> None:
    answer = await call(app, "DELETE", f"/v1/keys/{partner.access_key}", key=operator)
    assert answer.status == 204


async def revoke_oneself(app: Starlette, partner: HeldKey, operator: HeldKey) -> None:
    answer = await call(app, "DELETE", f"/v1/me/keys/{partner.access_key}", key=partner)
    assert answer.status == 204


async def block(app: Starlette, partner: HeldKey, operator: HeldKey) -> None:
    answer = await call(
        app, "PATCH", f"/v1/users/{partner.user_id}", key=operator, body={"status": "blocked"}
    )
    assert answer.status == 200


async def delete_owner(app: Starlette, partner: HeldKey, operator: HeldKey) -> None:
    """Revoke the keys with a statement that runs no hook; the owner's row is announced."""
    answer = await call(app, "DELETE", f"/v1/users/{partner.user_id}", key=operator)
    assert answer.status == 204


async def rotate(app: Starlette, partner: HeldKey, operator: HeldKey) -> None:
    answer = await call(
        app, "POST", f"/v1/keys/{partner.access_key}/rotate", key=operator, body={"grace_s": 0}
    )
    assert answer.status == 200


async def bind_elsewhere(app: Starlette, partner: HeldKey, operator: HeldKey) -> None:
    body = {"allowed_networks": ["192.0.2.0/24"]}
    answer = await call(app, "PATCH", f"/v1/keys/{partner.access_key}", key=operator, body=body)
    assert answer.status == 200


async def remove_the_row(app: Starlette, partner: HeldKey, operator: HeldKey) -> None:
    """Delete the row, as a team's own code might."""
    async with app.state.db.scoped_session() as session:
        await (await KeySecret.filter(api_key_id=partner.id).one()).remove()
        await (await ApiKey.filter(id=partner.id).one()).remove()
        await session.commit()


@pytest.mark.parametrize(
    "change, expected",
    [
        pytest.param(revoke, (401, "key_revoked"), id="revoked"),
        pytest.param(revoke_oneself, (401, "key_revoked"), id="revoked by itself"),
        pytest.param(block, (401, "owner_inactive"), id="owner blocked"),
        pytest.param(delete_owner, (401, "key_revoked"), id="owner deleted"),
        pytest.param(rotate, (401, "unauthenticated"), id="rotated"),
        pytest.param(bind_elsewhere, (403, "network_not_allowed"), id="bound to networks"),
        pytest.param(remove_the_row, (401, "unauthenticated"), id="row removed"),
    ],
)
async def test_a_change_is_in_force_when_it_is_answered(
    app: Starlette,
    partner: HeldKey,
    operator: HeldKey,
    change: Callable[..., Any],
    expected: tuple[int | str, ...],
) -> None:
    await change(app, partner, operator)

    assert await status(app, partner) == expected


async def test_an_unblocked_owner_is_in_force_at_once_too(
    app: Starlette, partner: HeldKey, operator: HeldKey
) -> None:
    await block(app, partner, operator)
    blocked = await status(app, partner)
    await call(app, "PATCH", f"/v1/users/{partner.user_id}", key=operator, body={"status": "active"})

    assert (blocked, await status(app, partner)) == ((401, "owner_inactive"), (200, None))


async def test_both_secrets_of_a_rotated_key_are_cached_for_the_grace(
    app: Starlette, partner: HeldKey
) -> None:
    rotated = await rotate_held(app, partner, grace_s=60)
    for key in (partner, rotated):
        await status(app, key)
    with wire.listening() as commands:
        answers = [await call(app, "GET", "/v1/me", key=key) for key in (partner, rotated)]

    assert [("deprecation" in answer.headers, answer.status) for answer in answers] == [
        (True, 200),
        (False, 200),
    ]
    assert commands == []


async def test_the_end_of_a_grace_and_of_a_key_need_no_change(app: Starlette, partner: HeldKey) -> None:
    """They are checked against the clock on each call."""
    ends_at = datetime.now(UTC) + timedelta(seconds=600)
    ending = await hold_key(app, mode=partner.mode, expires_at=ends_at)
    await rotate_held(app, partner, grace_s=600)
    before = [await status(app, key) for key in (partner, ending)]
    app.state.latchkey.verifier.clock = lambda: ends_at.timestamp() + 1
    with wire.listening() as commands:
        after = [await status(app, key) for key in (partner, ending)]

    assert before == [(200, None)] * 2
    assert after == [(401, "unauthenticated"), (401, "key_expired")]
    assert commands == []


async def test_a_key_that_appears_is_known_at_once(app: Starlette) -> None:
    """This holds even if its secret was tried before the key existed."""
    key = await hold_key(app)
    secret = new_secret("lk")
    early = msgspec.structs.replace(key, secret=secret)
    before = await status(app, early)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latchkey.service.keys.issuing.new_secret", lambda _prefix, **_: secret)
        made = await hold_key(app)

    assert (before, await status(app, made)) == ((401, "unauthenticated"), (200, None))


async def test_a_change_that_is_rolled_back_is_no_change(app: Starlette, partner: HeldKey) -> None:
    async with app.state.db.scoped_session() as session:
        row = await ApiKey.filter(id=partner.id).one()
        await row.update(status="revoked")
        await session.rollback()
    with wire.listening() as commands:
        assert await status(app, partner) == (200, None)

    assert commands == []


async def test_a_commit_of_unknown_outcome_counts_as_a_change(
    app: Starlette, partner: HeldKey, operator: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it succeeded, and only its answer was lost."""
    dialect = app.state.db.engine.sync_engine.dialect
    commit = dialect.do_commit

    def lose(connection: Any) -> None:
        commit(connection)
        raise OperationalError("COMMIT", {}, Exception(2013, "Lost"), connection_invalidated=True)

    await status(app, operator)
    monkeypatch.setattr(dialect, "do_commit", lose)
    answer = await call(app, "DELETE", f"/v1/keys/{partner.access_key}", key=operator)
    monkeypatch.undo()

    assert_problem(answer, 500, "commit_unknown")
    assert await status(app, partner) == (401, "key_revoked")


async def test_a_commit_that_failed_is_no_change(
    app: Starlette, partner: HeldKey, operator: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_connection: Any) -> None:
        raise OperationalError("COMMIT", {}, Exception(1047, "WSREP has not yet prepared node"))

    await status(app, operator)
    monkeypatch.setattr(app.state.db.engine.sync_engine.dialect, "do_commit", fail)
    answer = await call(app, "DELETE", f"/v1/keys/{partner.access_key}", key=operator)
    monkeypatch.undo()
    with wire.listening() as commands:
        assert await status(app, partner) == (200, None)

    assert_problem(answer, 503, "unavailable")
    assert commands == []


async def test_the_use_of_a_key_is_no_change(app: Starlette, partner: HeldKey) -> None:
    await app.state.latchkey.last_used.write()
    with wire.listening() as commands:
        assert await status(app, partner) == (200, None)

    assert commands == []


# ---------------------------------------------------------------------- on and off


class TestOff:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, key_cache_ttl_s=0)

    async def test_every_call_asks_and_no_commit_runs_a_hook(self, app: Starlette, partner: HeldKey) -> None:
        with wire.listening() as commands:
            for _ in range(3):
                await status(app, partner)

        assert len(commands) == 3
        assert [model.has_after_commit() for model in (ApiKey, User)] == [False, False]


async def test_closing_the_database_ends_the_watch(app: Starlette) -> None:
    watched = Watched.watcher is not None
    await app.state.db.close()

    assert (watched, Watched.watcher) == (True, None)


async def test_it_works_under_the_application_s_own_roof(
    app: Starlette, partner: HeldKey, operator: HeldKey
) -> None:
    """From the application's start to its end, which stops the listening task."""
    async with lifespan(app):
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        await revoke(app, partner, operator)
        answer = await status(app, partner)

    assert answer == (401, "key_revoked")
    assert "last used" in tasks
    assert not {"last used", "revocations"} & {task.get_name() for task in asyncio.all_tasks()}


# ---------------------------------------------------------------------- cancelled


async def test_waiters_are_answered_wherever_the_asking_task_is_cancelled(
    app: Starlette, operator: HeldKey
) -> None:
    """R6, with the cache: at every point, and nothing is left over."""
    cache = app.state.latchkey.verifier.keys
    headers = dict([operator.bearer])

    async def strike(n: int) -> bool:
        """Cancel at suspension n, or finish before."""
        itself, struck = asyncio.current_task(), False

        def cancel() -> None:
            nonlocal struck
            struck = itself.cancel()

        with contextlib.suppress(asyncio.CancelledError):
            await cancel_at_suspension(converse(app, "GET", "/v1/me", headers=headers), n, cancel)
        return struck

    cancellations = 0
    for n in itertools.count():
        cache.empty()
        first = asyncio.create_task(strike(n))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(status(app, operator) for _ in range(3)))
            struck = await first
        assert answers == [(200, None)] * 3
        await assert_nothing_left(app.state.db)
        if not struck:
            break
        cancellations += 1

    assert cancellations >= 3
