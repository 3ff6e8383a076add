"""`POST /v1/keys/{access_key}/rotate`, and the secret that it replaces."""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from latchkey.models import ApiKey, KeySecret
from latchkey.service.authentication import lookup
from latchkey.service.authentication.wire.credentials import hash_secret
from latchkey.service.database.session import RequestSession
from latchkey.service.operation import Operation, route
from tests import mysql, wire
from tests.api import HeldKey, assert_problem, call, hold_key, key_row, rfc3339, rotate_held, stored
from tests.conftest import on_mariadb
from tests.requests import Answer

DAY_S = 24 * 60 * 60
NEVER = {"deprecation", "sunset"}


async def fail() -> None:
    """Fail."""
    raise ZeroDivisionError


async def lose_the_database() -> None:
    """Fail as the driver does."""
    raise OperationalError("SELECT", {}, Exception(2013, "lost")) from None


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("GET", "/fail", fail, any_key=True),
        route("GET", "/lost", lose_the_database, any_key=True),
        route("GET", "/forbidden", fail, scope="never:held"),
    )


@pytest.fixture(params=["bearer", "signed"])
async def partner(app: Starlette, request: pytest.FixtureRequest) -> HeldKey:
    """Return a key of another owner that may read users, of either mode."""
    return await hold_key(app, email="partner@example.com", scopes=["users:read"], mode=request.param)


async def rotate(
    app: Starlette, caller: HeldKey, key: HeldKey, grace_s: int = DAY_S, **fields: Any
) -> Answer:
    body = {"grace_s": grace_s, **fields}
    return await call(app, "POST", f"/v1/keys/{key.access_key}/rotate", key=caller, body=body)


def renewed(key: HeldKey, answer: Answer) -> HeldKey:
    """Return the key with the new secret."""
    assert answer.status == 200, answer.body
    return msgspec.structs.replace(key, secret=answer.json["secret"])


async def who(app: Starlette, key: HeldKey) -> Answer:
    return await call(app, "GET", "/v1/me", key=key)


def later(app: Starlette, seconds: float) -> None:
    """Set the clock of the application ahead."""
    app.state.latchkey.verifier.clock = lambda: time.time() + seconds


async def secrets_of(key_id: int) -> list[KeySecret]:
    return await KeySecret.filter_by(api_key_id=key_id).order_by("version").all()


# ---------------------------------------------------------------------- the answer


async def test_it_answers_the_key_as_it_is_stored_with_its_new_secret(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    before = (await call(app, "GET", f"/v1/keys/{partner.access_key}", key=operator)).json
    asked = datetime.now(UTC)

    answer = await rotate(app, operator, partner)

    key = await key_row(partner.access_key)
    old, new = await secrets_of(partner.id)
    assert old.expires_at is not None
    assert (answer.status, answer.headers["cache-control"]) == (200, "private, no-store")
    assert answer.json == {
        **before,
        "secret_version": 2,
        "updated_at": rfc3339(key.updated_at),
        "secret": answer.json["secret"],
        "old_secret_expires_at": rfc3339(old.expires_at),
    }
    assert answer.json["secret"] != partner.secret
    assert new.secret_sha256 == hash_secret(answer.json["secret"])
    assert timedelta(0) <= old.expires_at - asked - timedelta(days=1) < timedelta(seconds=10)
    assert (await call(app, "GET", f"/v1/keys/{partner.access_key}", key=operator)).json == {
        name: answer.json[name] for name in before
    }


async def test_scopes_and_history_stay(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    await who(app, partner)
    await app.state.latchkey.last_used.write()
    before = await key_row(partner.access_key)

    new = renewed(partner, await rotate(app, operator, partner))

    after = await key_row(partner.access_key)
    for name in ("id", "user_id", "name", "mode", "scopes", "last_used_at", "created_at", "expires_at"):
        assert getattr(after, name) == getattr(before, name)
    assert (await call(app, "GET", f"/v1/users/{partner.user_id}", key=new)).status == 200


async def test_the_new_secret_is_stored_nowhere_in_plain(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    answer = await rotate(app, operator, partner)

    assert answer.json["secret"] not in repr(await stored(app.state.db.reader))


async def test_a_key_may_rotate_itself(app: Starlette, operator: HeldKey) -> None:
    new = renewed(operator, await rotate(app, operator, operator, grace_s=0))

    assert (await who(app, new)).status == 200
    assert_problem(await who(app, operator), 401, "unauthenticated")


# ---------------------------------------------------------------------- the grace period


async def test_both_secrets_work_until_the_grace_ends(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    new = renewed(partner, await rotate(app, operator, partner, grace_s=60))

    for ahead, old_status in ((0, 200), (55, 200), (60.5, 401), (DAY_S, 401)):
        later(app, ahead)
        assert ((await who(app, partner)).status, (await who(app, new)).status) == (old_status, 200)


async def test_a_secret_that_has_ended_is_like_one_that_never_was(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    """The same bytes, headers and number of queries as for an unknown secret."""
    await rotate(app, operator, partner, grace_s=60)
    later(app, 61)
    nobody = await hold_key(app, mode=partner.mode)
    async with app.state.db.scoped_session() as session:
        for row in await secrets_of(nobody.id):
            await row.remove()
        await session.commit()

    answers = []
    for key in (partner, nobody):
        with wire.listening() as commands:
            answer = await call(app, "GET", "/v1/me", key=key, headers=[("x-request-id", "same")])
        assert_problem(answer, 401, "unauthenticated")
        nonce = re.compile(r'nonce="[\w-]{22}"')  # a new one for each answer
        answers.append((answer.body, nonce.sub("", str(answer.headers)), len(commands)))

    assert answers[0] == answers[1]


async def test_without_grace_the_old_secret_ends_at_once(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    answer = await rotate(app, operator, partner, grace_s=0)

    assert answer.json["old_secret_expires_at"] is None
    assert_problem(await who(app, partner), 401, "unauthenticated")
    assert (await who(app, renewed(partner, answer))).status == 200
    assert [one.version for one in await secrets_of(partner.id)] == [2]


async def test_a_later_rotation_ends_the_oldest_at_once(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    second = renewed(partner, await rotate(app, operator, partner))
    third = renewed(partner, await rotate(app, operator, partner))

    assert_problem(await who(app, partner), 401, "unauthenticated")
    assert ((await who(app, second)).status, (await who(app, third)).status) == (200, 200)
    assert [one.version for one in await secrets_of(partner.id)] == [2, 3]
    assert (await key_row(partner.access_key)).secret_version == 3


async def test_the_old_secret_ends_at_the_latest_with_its_key(app: Starlette, operator: HeldKey) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    held = await hold_key(app, email="partner@example.com", scopes=[], expires_at=ends)

    answer = await rotate(app, operator, held, grace_s=30 * DAY_S)
    await call(app, "PATCH", f"/v1/keys/{held.access_key}", key=operator, body={"expires_at": None})
    later(app, 3601)

    assert answer.json["old_secret_expires_at"] == answer.json["expires_at"] == rfc3339(ends)
    assert_problem(await who(app, held), 401, "unauthenticated")
    assert (await who(app, renewed(held, answer))).status == 200


async def test_an_expired_key_can_be_rotated_and_stays_expired(app: Starlette, operator: HeldKey) -> None:
    held = await hold_key(app, scopes=[], expires_at=datetime(2020, 1, 1, tzinfo=UTC))

    answer = await rotate(app, operator, held)

    assert answer.json["old_secret_expires_at"] is None
    assert_problem(await who(app, renewed(held, answer)), 401, "key_expired")


async def test_a_signed_keys_old_secret_sent_as_a_bearer_is_logged_as_exposed(
    app: Starlette, operator: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    held = await hold_key(app, mode="signed", scopes=[])
    await rotate(app, operator, held)

    answer = await call(app, "GET", "/v1/me", headers=[held.bearer])

    assert_problem(answer, 401, "unauthenticated")
    assert any("sent as a bearer" in line.getMessage() for line in log_lines)


async def test_a_revoked_key_is_revoked_for_both_secrets(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    new = renewed(partner, await rotate(app, operator, partner))
    await call(app, "DELETE", f"/v1/keys/{partner.access_key}", key=operator)

    assert_problem(await who(app, partner), 401, "key_revoked")
    assert_problem(await who(app, new), 401, "key_revoked")


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "body, pointer",
    [
        pytest.param({}, "/grace_s", id="no grace"),
        pytest.param({"grace_s": -1}, "/grace_s", id="a negative grace"),
        pytest.param({"grace_s": 30 * DAY_S + 1}, "/grace_s", id="a grace of more than 30 days"),
        pytest.param({"grace_s": 1.5}, "/grace_s", id="a part of a second"),
        pytest.param({"grace_s": "60"}, "/grace_s", id="a text"),
        pytest.param({"grace_s": True}, "/grace_s", id="true"),
        pytest.param({"grace_s": None}, "/grace_s", id="null"),
        pytest.param({"grace_s": 10**30}, "/grace_s", id="10^30"),
        pytest.param({"grace_s": 0, "version": 0}, "/version", id="version 0"),
        pytest.param({"grace_s": 0, "version": None}, "/version", id="version null"),
        pytest.param({"grace_s": 0, "version": "1"}, "/version", id="version as a text"),
        pytest.param({"grace_s": 0, "scopes": []}, "/scopes", id="an unknown field"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_422_and_changes_nothing(
    app: Starlette, operator: HeldKey, body: dict[str, Any], pointer: str
) -> None:
    before = await stored(app.state.db.reader)

    answer = await call(app, "POST", f"/v1/keys/{operator.access_key}/rotate", key=operator, body=body)

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize("grace_s", [0, 30 * DAY_S])
async def test_the_longest_and_the_shortest_grace_are_taken(
    app: Starlette, operator: HeldKey, grace_s: int
) -> None:
    assert (await rotate(app, operator, operator, grace_s=grace_s)).status == 200


@pytest.mark.parametrize("version", [1, 3, 10**30])
async def test_another_version_than_the_one_that_is_named_is_409(
    app: Starlette, operator: HeldKey, partner: HeldKey, version: int
) -> None:
    await rotate(app, operator, partner, version=1)
    before = await stored(app.state.db.reader)

    answer = await rotate(app, operator, partner, version=version)

    assert_problem(answer, 409, "version_changed")
    assert "version 2" in answer.json["detail"]
    assert await stored(app.state.db.reader) == before


async def test_one_of_two_simultaneous_rotations_of_a_version_wins(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(rotate(app, operator, partner, version=1)) for _ in range(2)]

    won, lost = sorted((task.result() for task in both), key=lambda answer: answer.status or 0)
    assert_problem(lost, 409, "version_changed")
    assert (await who(app, renewed(partner, won))).status == 200
    assert (await who(app, partner)).status == 200
    assert [one.version for one in await secrets_of(partner.id)] == [1, 2]


@on_mariadb
async def test_a_rotation_waits_for_one_that_is_under_way(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    """It compares its version with the result of the earlier rotation, not with the state when it was called."""
    async with app.state.db.scoped_session() as session:
        row = await ApiKey.filter_by(id=partner.id).for_update().one()
        await app.state.latchkey.key_rules.issuer.rotate(row, grace_s=60)
        waiting = asyncio.create_task(rotate(app, operator, partner, version=1))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        await session.commit()

    assert not done
    assert_problem(await waiting, 409, "version_changed")
    assert [one.version for one in await secrets_of(partner.id)] == [1, 2]


async def test_two_rotations_at_once_that_name_none_come_one_after_the_other(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(rotate(app, operator, partner)) for _ in range(2)]

    answers = sorted((task.result() for task in both), key=lambda answer: answer.json["secret_version"])
    assert [answer.json["secret_version"] for answer in answers] == [2, 3]
    assert [(await who(app, renewed(partner, answer))).status for answer in answers] == [200, 200]


async def test_a_revoked_key_is_not_rotated(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    await call(app, "DELETE", f"/v1/keys/{partner.access_key}", key=operator)
    before = await stored(app.state.db.reader)

    assert_problem(await rotate(app, operator, partner, version=7), 409, "key_not_active")
    assert await stored(app.state.db.reader) == before


async def test_a_path_that_names_no_key_is_404(app: Starlette, operator: HeldKey) -> None:
    answer = await call(
        app, "POST", "/v1/keys/lka_0000000000000000000000/rotate", key=operator, body={"grace_s": 0}
    )

    assert_problem(answer, 404, "not_found")


async def test_rotating_needs_keys_write(app: Starlette, partner: HeldKey) -> None:
    caller = await hold_key(app, scopes=["keys:read", "users:read"])

    assert_problem(await rotate(app, caller, partner), 403, "scope_missing")


async def test_rotating_needs_every_scope_that_the_key_has(app: Starlette) -> None:
    """Otherwise a key that may write keys could get the secret of a key with more scopes."""
    caller = await hold_key(app, scopes=["keys:write", "users:read"])
    richer = await hold_key(app, email="partner@example.com", scopes=["users:read", "users:write"])
    before = await stored(app.state.db.reader)

    answer = await rotate(app, caller, richer)

    assert_problem(answer, 403, "scope_not_held")
    assert "users:write" in answer.json["detail"]
    assert await stored(app.state.db.reader) == before


# ---------------------------------------------------------------------- answers to calls with the old secret


async def test_only_a_call_with_the_old_secret_is_told_that_it_is_old(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    untouched = await who(app, partner)
    answer = await rotate(app, operator, partner, grace_s=60)
    old, new = await secrets_of(partner.id)

    told, new_told = await who(app, partner), await who(app, renewed(partner, answer))

    assert NEVER.isdisjoint(untouched.headers)
    assert NEVER.isdisjoint(new_told.headers)
    assert told.headers["deprecation"] == f"@{int(new.created_at.timestamp())}"
    assert parsedate_to_datetime(told.headers["sunset"]) == old.expires_at.replace(microsecond=0)
    assert told.headers["sunset"].endswith(" GMT")


@pytest.mark.parametrize(
    "method, target, status, code",
    [
        pytest.param("GET", "/forbidden", 403, "scope_missing", id="403 of the authenticator"),
        pytest.param("GET", "/v1/users/0", 404, "not_found", id="404 of an endpoint"),
        pytest.param("GET", "/v1/users?colour=red", 400, "invalid_parameter", id="400 of the adapter"),
        pytest.param("GET", "/lost", 503, "unavailable", id="503 of the session"),
        pytest.param("GET", "/fail", 500, "internal_error", id="500 of the last resort"),
    ],
)
async def test_errors_after_the_proof_tell_it_too(
    app: Starlette, operator: HeldKey, partner: HeldKey, method: str, target: str, status: int, code: str
) -> None:
    await rotate(app, operator, partner)

    answer = await call(app, method, target, key=partner)

    assert_problem(answer, status, code)
    assert answer.headers.keys() >= NEVER


async def test_a_body_that_is_not_the_signed_one_is_told_it_too(app: Starlette, operator: HeldKey) -> None:
    signer = await hold_key(app, mode="signed", email="partner@example.com")
    await rotate(app, operator, signer)

    async def alter(scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Message:
            return {**await receive(), "body": b'{"name":"y"}'}

        await app(scope, received, send)

    answer = await call(
        app, "PATCH", f"/v1/users/{signer.user_id}", key=signer, body=b'{"name":"x"}', wrap=alter
    )

    assert_problem(answer, 401, "digest_mismatch")
    assert answer.headers.keys() >= NEVER


async def test_errors_before_the_proof_tell_nothing(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    await rotate(app, operator, partner)

    for target, key in (("/v1/me", None), ("/nothing", partner)):
        assert NEVER.isdisjoint((await call(app, "GET", target, key=key)).headers)


# ---------------------------------------------------------------------- counters for the operator


async def old_uses(app: Starlette, operator: HeldKey, key: HeldKey) -> tuple[int, str | None]:
    await app.state.latchkey.last_used.write()
    shown = (await call(app, "GET", f"/v1/keys/{key.access_key}", key=operator)).json
    return shown["old_secret_calls"], shown["old_secret_last_used_at"]


async def test_calls_with_the_old_secret_are_counted_and_those_with_the_new_are_not(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    await who(app, partner)
    new = renewed(partner, await rotate(app, operator, partner))
    assert await old_uses(app, operator, partner) == (0, None)

    for key in (partner, new, partner, new, new):
        await who(app, key)
    calls, moment = await old_uses(app, operator, partner)
    await call(app, "GET", "/forbidden", key=partner)
    more, _ = await old_uses(app, operator, partner)

    assert (calls, more) == (2, 3)
    assert moment is not None
    assert abs(datetime.fromisoformat(moment) - datetime.now(UTC)) < timedelta(seconds=30)


async def test_counting_is_no_change_of_the_key(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    await rotate(app, operator, partner)
    before = await key_row(partner.access_key)

    await who(app, partner)
    assert (await old_uses(app, operator, partner))[0] == 1

    assert (await key_row(partner.access_key)).updated_at == before.updated_at


async def test_the_count_is_written_outside_of_requests(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    await rotate(app, operator, partner)

    with wire.listening() as commands:
        await who(app, partner)

    assert not any(command.startswith("UPDATE") for command in commands)


async def test_each_rotation_counts_anew(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    second = renewed(partner, await rotate(app, operator, partner))
    await who(app, partner)
    assert (await old_uses(app, operator, partner))[0] == 1

    await rotate(app, operator, partner)

    assert await old_uses(app, operator, partner) == (0, None)
    await who(app, second)
    assert (await old_uses(app, operator, partner))[0] == 1


async def test_uses_collected_before_a_rotation_are_not_counted_after_it(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    await rotate(app, operator, partner)
    await who(app, partner)

    await rotate(app, operator, partner)

    assert await old_uses(app, operator, partner) == (0, None)


async def test_counts_of_several_workers_add_up_and_the_last_use_moves_only_forward(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    await rotate(app, operator, partner)
    late, early = datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)

    for moment in (late, early):
        app.state.latchkey.last_used.note_old(partner.id, 1, moment)
        await app.state.latchkey.last_used.write()

    assert await old_uses(app, operator, partner) == (2, rfc3339(late))


async def test_uses_that_could_not_be_written_are_counted_later(
    app: Starlette, operator: HeldKey, partner: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rotate(app, operator, partner)
    last_used, session_class = app.state.latchkey.last_used, type(app.state.db.scoped_session())
    await app.state.db.scoped_session.remove()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    last_used.note_old(partner.id, 1, moment)

    async def fail(self: Any) -> None:
        last_used.note_old(partner.id, 1, moment + timedelta(seconds=1))
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(session_class, "commit", fail)
        with pytest.raises(ConnectionError):
            await last_used.write()

    assert await old_uses(app, operator, partner) == (2, rfc3339(moment + timedelta(seconds=1)))


# ---------------------------------------------------------------------- cost


@pytest.mark.parametrize("rotations", [0, 1, 2])
@on_mariadb
async def test_asking_who_calls_is_one_round_trip_with_any_secret(
    app: Starlette, operator: HeldKey, partner: HeldKey, rotations: int
) -> None:
    old = new = partner
    for _ in range(rotations):
        old, new = new, await rotate_held(app, new, grace_s=60)
    await who(app, operator)

    for key in (old, new):
        with wire.listening() as commands:
            assert (await who(app, key)).status == 200
        assert len(commands) == 1, commands


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_an_index_serves_the_lookup(app: Starlette, mode: str) -> None:
    """No lookup scans a table."""
    held = [await hold_key(app, mode=mode, email=f"u{number}@example.com", scopes=[]) for number in range(30)]
    lookups: dict[str, tuple[Any, dict[str, Any]]] = {
        "bearer": (lookup.BY_SECRET.statement, {"secret_sha256": hash_secret(held[7].secret)}),
        "signed": (lookup.BY_ACCESS_KEY.statement, {"access_key": held[7].access_key}),
    }
    statement, values = lookups[mode]
    engine = app.state.db.engine
    compiled = statement.compile(dialect=engine.dialect, compile_kwargs={"render_postcompile": True})
    binary = (
        f"X'{next(iter(compiled.construct_params(values).values())).hex()}'" if mode == "bearer" else None
    )
    literal = binary or f"X'{held[7].access_key.encode().hex()}'"
    sql = str(compiled).replace("%s", literal).replace("?", literal)

    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            plan = [row[-1] for row in await connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
            assert [line for line in plan if line.startswith("SCAN")] == [], plan
        else:
            await connection.execute(text("ANALYZE TABLE api_keys, key_secrets, users"))
            if mysql.is_chosen():  # whose EXPLAIN is a tree by default
                await connection.execute(text("SET SESSION explain_format = 'TRADITIONAL'"))
            plan = (await connection.execute(text(f"EXPLAIN {sql}"))).mappings().all()
            assert [row for row in plan if row["type"] in {"ALL", "index"}] == [], plan


async def test_the_lookup_finds_one_key_with_its_two_secrets(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    new = renewed(partner, await rotate(app, operator, partner))

    async with app.state.db.scoped_session() as session:
        assert isinstance(session, RequestSession)
        for key in (partner, new):
            by_secret = await lookup.by_secret(session, hash_secret(key.secret))
            by_id = await lookup.by_access_key(session, key.access_key)
            assert by_secret == by_id
            assert [one.version for one in by_id.secrets] == [2, 1]
            assert [one.sealed is None for one in by_id.secrets] == [partner.mode == "bearer"] * 2


async def test_no_secret_shows_in_what_a_traceback_would_show(app: Starlette, partner: HeldKey) -> None:
    (row,) = await secrets_of(partner.id)
    found = lookup.StoredSecret(**{name: getattr(row, name) for name in lookup.SECRET_FIELDS})

    assert repr(found) == "StoredSecret(version=1)"
