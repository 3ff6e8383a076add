"""`/v1/keys`: every sentence of its description."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, key_row, rfc3339, stored, user_row
from tests.requests import Answer

NIGHTLY = {"name": "nightly import", "mode": "bearer", "scopes": ["users:read"]}
PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    """Return a key of another owner that may read users."""
    return await hold_key(app, email="partner@example.com", scopes=["users:read"])


async def create(app: Starlette, operator: HeldKey, **fields: Any) -> Answer:
    return await call(
        app, "POST", "/v1/keys", key=operator, body={"user_id": operator.user_id, **NIGHTLY, **fields}
    )


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_a_created_key_is_answered_as_it_is_stored_with_its_secret(
    app: Starlette, operator: HeldKey, mode: str
) -> None:
    answer = await create(app, operator, mode=mode)

    key = await key_row(answer.json["access_key"])
    assert answer.status == 201
    assert answer.headers["location"] == f"/v1/keys/{key.access_key}"
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.json == {
        "access_key": key.access_key,
        "user_id": operator.user_id,
        **NIGHTLY,
        "mode": mode,
        "allowed_networks": [],
        "limits": [],
        "quota": None,
        "environment": "live",
        "roles": [],
        "role_scopes": [],
        "credits": None,
        "external_id": None,
        "meta": {},
        "status": "active",
        "secret_version": 1,
        "old_secret_calls": 0,
        "old_secret_last_used_at": None,
        "expires_at": None,
        "last_used_at": None,
        "created_at": rfc3339(key.created_at),
        "updated_at": rfc3339(key.updated_at),
        "secret": answer.json["secret"],
    }


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_a_created_key_works_at_once(app: Starlette, operator: HeldKey, mode: str) -> None:
    made = (await create(app, operator, mode=mode)).json
    held = type(operator)(
        id=0, user_id=0, access_key=made["access_key"], secret=made["secret"], mode=made["mode"]
    )

    answer = await call(app, "GET", f"/v1/users/{operator.user_id}", key=held)

    assert answer.status == 200


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_a_secret_is_shown_only_once_and_stored_nowhere_in_plain(
    app: Starlette, operator: HeldKey, mode: str
) -> None:
    made = await create(app, operator, mode=mode)
    path, secret = made.headers["location"], made.json["secret"]

    shown = [
        await call(app, "GET", path, key=operator),
        await call(app, "GET", "/v1/keys", key=operator),
        await call(app, "PATCH", path, key=operator, body={"name": "renamed"}),
    ]

    assert [answer.status for answer in shown] == [200, 200, 200]
    assert not any(b'"secret"' in answer.body or secret.encode() in answer.body for answer in shown)
    assert secret not in repr(await stored(app.state.db.reader))


@pytest.mark.parametrize(
    "given, answered",
    [
        pytest.param(
            "2999-01-02T03:04:05.678901Z", "2999-01-02T03:04:05.678901Z", id="UTC, to the microsecond"
        ),
        pytest.param("2999-01-02T03:04:05+05:30", "2999-01-01T21:34:05Z", id="an offset"),
        pytest.param("2999-01-02 03:04:05z", "2999-01-02T03:04:05Z", id="the looser forms of RFC 3339"),
        pytest.param("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z", id="the last moment"),
        pytest.param(None, None, id="never"),
    ],
)
async def test_an_expiry_is_answered_in_utc(
    app: Starlette, operator: HeldKey, given: str | None, answered: str | None
) -> None:
    made = await create(app, operator, expires_at=given)
    read = await call(app, "GET", made.headers["location"], key=operator)

    assert (made.status, made.json["expires_at"], read.json["expires_at"]) == (201, answered, answered)


UNFIT_EXPIRIES = [
    pytest.param("2999-01-01T00:00:00", id="no offset"),
    pytest.param("2020-01-01T00:00:00Z", id="past"),
    pytest.param("9999-12-31T23:59:59-14:00", id="past the last year in UTC"),
    pytest.param("0001-01-01T00:00:00+14:00", id="before the first year in UTC"),
    pytest.param("2999-01-01", id="a date"),
    pytest.param("tomorrow", id="a word"),
    pytest.param("", id="nothing"),
    pytest.param(32503680000, id="a number"),
    pytest.param("2999-02-30T00:00:00Z", id="no such day"),
]


@pytest.mark.parametrize("expires_at", UNFIT_EXPIRIES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_an_expiry_carries_its_offset_and_lies_in_the_future(
    app: Starlette, operator: HeldKey, partner: HeldKey, method: str, expires_at: str | int
) -> None:
    before = await stored(app.state.db.reader)

    if method == "POST":
        answer = await create(app, operator, expires_at=expires_at)
    else:
        answer = await call(
            app, "PATCH", f"/v1/keys/{partner.access_key}", key=operator, body={"expires_at": expires_at}
        )

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == ["/expires_at"]
    assert await stored(app.state.db.reader) == before


async def test_an_expired_key_is_refused(app: Starlette) -> None:
    held = await hold_key(app, expires_at=PAST)

    assert_problem(await call(app, "GET", "/v1/me", key=held), 401, "key_expired")


@pytest.mark.parametrize("user_id", [1, 2**63 - 1])
async def test_a_key_of_nobody_is_422_at_the_user_id(app: Starlette, operator: HeldKey, user_id: int) -> None:
    if user_id == operator.user_id:
        user_id += 1

    answer = await create(app, operator, user_id=user_id)

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == ["/user_id"]


@pytest.mark.parametrize("status", ["blocked", "deleted"])
async def test_an_inactive_user_gets_no_key(
    app: Starlette, operator: HeldKey, partner: HeldKey, status: str
) -> None:
    path = f"/v1/users/{partner.user_id}"
    if status == "blocked":
        await call(app, "PATCH", path, key=operator, body={"status": "blocked"})
    else:
        await call(app, "DELETE", path, key=operator)
    before = await stored(app.state.db.reader)

    answer = await create(app, operator, user_id=partner.user_id)

    assert_problem(answer, 409, "user_not_active")
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize(
    "scopes, pointer",
    [
        pytest.param(["users:read", "users:fly"], "/scopes/1", id="no route declares it"),
        pytest.param(["users:read", "keys:read", "users:read"], "/scopes/2", id="twice"),
        pytest.param(["USERS:READ"], "/scopes/0", id="another letter case"),
        pytest.param([""], "/scopes/0", id="empty"),
        pytest.param(["users:read keys:read"], "/scopes/0", id="two in one"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_scope_is_one_that_a_route_declares_and_there_once(
    app: Starlette, operator: HeldKey, partner: HeldKey, method: str, scopes: list[str], pointer: str
) -> None:
    if method == "POST":
        answer = await create(app, operator, scopes=scopes)
    else:
        answer = await call(
            app, "PATCH", f"/v1/keys/{partner.access_key}", key=operator, body={"scopes": scopes}
        )

    assert_problem(answer, 422, "invalid_body")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


# ---------------------------------------------------------------------- scopes that the caller lacks


@pytest.fixture
async def registrar(app: Starlette) -> HeldKey:
    """Return a key that may only write keys and read users."""
    return await hold_key(app, email="registrar@example.com", scopes=["keys:write", "users:read"])


async def test_a_key_gives_what_it_holds(app: Starlette, registrar: HeldKey) -> None:
    assert (await create(app, registrar, scopes=["users:read"])).status == 201


async def test_a_key_cannot_give_what_it_does_not_hold(app: Starlette, registrar: HeldKey) -> None:
    before = await stored(app.state.db.reader)

    answer = await create(app, registrar, scopes=["users:read", "users:write", "keys:read"])

    assert_problem(answer, 403, "scope_not_held")
    assert "keys:read, users:write" in answer.json["detail"]
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize(
    "has, gets",
    [
        pytest.param(["users:write"], ["users:read"], id="the key has more"),
        pytest.param(["users:read"], ["users:write"], id="the key would get more"),
        pytest.param(["users:write"], None, id="the key has more, and only its name would change"),
    ],
)
async def test_changing_a_key_needs_every_scope_that_it_has_or_gets(
    app: Starlette, registrar: HeldKey, has: list[str], gets: list[str] | None
) -> None:
    held = await hold_key(app, email="partner@example.com", scopes=has)
    before = await stored(app.state.db.reader)

    answer = await call(
        app,
        "PATCH",
        f"/v1/keys/{held.access_key}",
        key=registrar,
        body={"name": "x", **({"scopes": gets} if gets else {})},
    )

    assert_problem(answer, 403, "scope_not_held")
    assert "users:write" in answer.json["detail"]
    assert await stored(app.state.db.reader) == before


# ---------------------------------------------------------------------- change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"name": "renamed"}, id="name"),
        pytest.param({"scopes": ["keys:read", "keys:write"]}, id="scopes"),
        pytest.param({"scopes": []}, id="no scopes"),
        pytest.param({"expires_at": "2999-01-01T00:00:00.000001Z"}, id="expiry"),
        pytest.param({"name": "n", "scopes": ["keys:read"], "expires_at": "2999-01-01T00:00:00Z"}, id="all"),
    ],
)
async def test_a_change_is_answered_as_it_is_stored_and_what_is_absent_stays(
    app: Starlette, operator: HeldKey, partner: HeldKey, change: dict[str, Any]
) -> None:
    path = f"/v1/keys/{partner.access_key}"
    before = (await call(app, "GET", path, key=operator)).json

    answer = await call(app, "PATCH", path, key=operator, body=change)

    key = await key_row(partner.access_key)
    assert answer.status == 200
    assert answer.json == {**before, **change, "updated_at": rfc3339(key.updated_at)}
    assert answer.json["updated_at"] != before["updated_at"]
    assert (await call(app, "GET", path, key=operator)).json == answer.json


async def test_an_expiry_of_null_is_never(app: Starlette, operator: HeldKey) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    held = await hold_key(app, expires_at=tomorrow)

    answer = await call(app, "PATCH", f"/v1/keys/{held.access_key}", key=operator, body={"expires_at": None})

    assert (answer.status, answer.json["expires_at"]) == (200, None)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="{}"),
        pytest.param(
            {"name": "bearer key", "scopes": ["users:read"], "expires_at": None}, id="all as they are"
        ),
    ],
)
async def test_a_change_to_what_is_there_changes_nothing(
    app: Starlette, operator: HeldKey, partner: HeldKey, change: dict[str, Any]
) -> None:
    before = await stored(app.state.db.reader)

    answer = await call(app, "PATCH", f"/v1/keys/{partner.access_key}", key=operator, body=change)

    assert (answer.status, answer.json["name"]) == (200, "bearer key")
    assert await stored(app.state.db.reader) == before


# ---------------------------------------------------------------------- revoke


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_the_next_call_with_a_revoked_key_is_401(app: Starlette, operator: HeldKey, mode: str) -> None:
    held = await hold_key(app, mode=mode)

    answer = await call(app, "DELETE", f"/v1/keys/{held.access_key}", key=operator)

    assert (answer.status, answer.body) == (204, b"")
    assert_problem(await call(app, "GET", "/v1/me", key=held), 401, "key_revoked")


async def test_a_key_may_revoke_itself(app: Starlette, operator: HeldKey) -> None:
    path = f"/v1/keys/{operator.access_key}"

    assert (await call(app, "DELETE", path, key=operator)).status == 204
    assert_problem(await call(app, "DELETE", path, key=operator), 401, "key_revoked")


async def test_a_revoked_key_can_be_read_and_revoked_again_but_not_changed(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    path = f"/v1/keys/{partner.access_key}"
    await call(app, "DELETE", path, key=operator)
    before = await stored(app.state.db.reader)

    read = await call(app, "GET", path, key=operator)
    changed = await call(app, "PATCH", path, key=operator, body={"name": "x"})
    unchanged = await call(app, "PATCH", path, key=operator, body={})
    again = await call(app, "DELETE", path, key=operator)

    assert (read.status, read.json["status"]) == (200, "revoked")
    assert_problem(changed, 409, "key_not_active")
    assert_problem(unchanged, 409, "key_not_active")
    assert again.status == 204
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda _: "lka_0000000000000000000000", id="unknown"),
        pytest.param(str.swapcase, id="another letter case"),
        pytest.param(lambda key: key + "%20", id="a blank at the end"),
        pytest.param(lambda key: key + "%0A", id="a newline at the end"),
        pytest.param(lambda key: key + "%00", id="a null at the end"),
        pytest.param(lambda _: "x" * 5000, id="too long"),
        pytest.param(lambda _: "%F0%9F%98%80%27%22%5C", id="odd characters"),
        pytest.param(lambda _: "%ff", id="no UTF-8"),
        pytest.param(lambda _: "1", id="a number"),
    ],
)
async def test_a_public_id_that_names_no_key_is_404(
    app: Starlette, operator: HeldKey, method: str, spoil: Callable[..., Any]
) -> None:
    answer = await call(
        app,
        method,
        f"/v1/keys/{spoil(operator.access_key)}",
        key=operator,
        body={"name": "x"} if method == "PATCH" else None,
    )

    assert_problem(answer, 404, "not_found")


# ---------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    "query, found",
    [
        pytest.param("", "operator partner registrar revoked", id="all, the revoked too"),
        pytest.param("?user_id={partner}", "partner revoked", id="of one owner"),
        pytest.param("?status=active", "operator partner registrar", id="active"),
        pytest.param("?status=revoked", "revoked", id="revoked"),
        pytest.param("?user_id={partner}&status=active", "partner", id="both"),
        pytest.param("?user_id={registrar}&status=revoked", "", id="both, contradicting"),
        pytest.param("?user_id=9223372036854775807", "", id="of nobody"),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 200])
async def test_the_pages_hold_every_key_that_the_filters_let_through(
    app: Starlette,
    operator: HeldKey,
    partner: HeldKey,
    registrar: HeldKey,
    query: str,
    found: str,
    limit: int,
) -> None:
    revoked = await hold_key(app, email="partner@example.com", status="revoked")
    names = {"operator": operator, "partner": partner, "registrar": registrar, "revoked": revoked}
    query = query.format(partner=partner.user_id, registrar=registrar.user_id)

    shown: list[str] = []
    target: str | None = f"/v1/keys{query}{'&' if query else '?'}limit={limit}"
    while target is not None:
        answer = await call(app, "GET", target, key=operator)
        assert answer.status == 200
        assert len(answer.json["data"]) <= limit
        shown += [key["access_key"] for key in answer.json["data"]]
        cursor = answer.json["next_cursor"]
        target = answer.headers["link"][1:].partition(">")[0] if cursor else None

    assert shown == [names[name].access_key for name in found.split()]


@pytest.mark.parametrize(
    "before, found",
    [
        pytest.param("2100-01-01T00:00:00Z", "", id="the moment itself is not before it"),
        pytest.param("2100-01-01T00:00:00.000001Z", "soon", id="a microsecond later"),
        pytest.param("2100-01-01T01:00:00%2B01:00", "", id="the same moment elsewhere"),
        pytest.param("2100-01-01T00:00:01-00:00", "soon", id="an offset of nothing"),
        pytest.param("2101-01-01T00:00:00Z", "soon", id="a year later"),
        pytest.param("2150-01-01T00:00:00Z", "soon gone later", id="all that ever end, the revoked too"),
        pytest.param("2150-01-01T00:00:00Z&status=active", "soon later", id="of those that are active"),
        pytest.param("2150-01-01T00:00:00Z&user_id=1", "", id="of another owner"),
    ],
)
@pytest.mark.parametrize("limit", [1, 200])
async def test_keys_that_expire_before_a_time_are_listed_and_others_are_not(
    app: Starlette, operator: HeldKey, before: str, found: str, limit: int
) -> None:
    keys = {
        "never": await hold_key(app),
        "soon": await hold_key(app, expires_at=datetime(2100, 1, 1, tzinfo=UTC)),
        "gone": await hold_key(app, expires_at=datetime(2102, 1, 1, tzinfo=UTC), status="revoked"),
        "later": await hold_key(app, expires_at=datetime(2103, 1, 1, tzinfo=UTC)),
    }
    before = before.replace("user_id=1", f"user_id={operator.user_id + 1}")

    shown: list[str] = []
    target: str | None = f"/v1/keys?limit={limit}&expires_before={before}"
    while target is not None:
        answer = await call(app, "GET", target, key=operator)
        assert answer.status == 200, answer.body
        shown += [key["access_key"] for key in answer.json["data"]]
        target = answer.headers["link"][1:].partition(">")[0] if answer.json["next_cursor"] else None

    assert shown == [keys[name].access_key for name in found.split()]


async def test_a_cursor_is_bound_to_the_moment_whatever_its_offset(app: Starlette, operator: HeldKey) -> None:
    for _ in range(2):
        await hold_key(app, expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    page = await call(app, "GET", "/v1/keys?limit=1&expires_before=2101-01-01T00:00:00Z", key=operator)
    cursor = page.json["next_cursor"]

    async def go_on(before: str) -> Answer:
        return await call(app, "GET", f"/v1/keys?limit=1&cursor={cursor}{before}", key=operator)

    assert (await go_on("&expires_before=2101-01-01T05:30:00%2B05:30")).status == 200
    assert_problem(await go_on(""), 400, "invalid_cursor")
    assert_problem(await go_on("&expires_before=2101-01-01T00:00:01Z"), 400, "invalid_cursor")


# ---------------------------------------------------------------------- last use


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_a_use_is_gathered_in_memory_and_written_later_as_no_change_of_the_key(
    app: Starlette, mode: str
) -> None:
    held = await hold_key(app, mode=mode)
    before = await key_row(held.access_key)

    with wire.listening() as commands:
        await call(app, "GET", "/v1/me", key=held)
    unwritten = await key_row(held.access_key)
    await app.state.latchkey.last_used.write()
    written = await key_row(held.access_key)

    assert not any(command.startswith("UPDATE") for command in commands)
    assert unwritten.last_used_at is None
    assert written.last_used_at is not None
    assert abs(written.last_used_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert written.updated_at == before.updated_at
    shown = await call(app, "GET", "/v1/me", key=held)
    assert shown.json["key"]["last_used_at"] == rfc3339(written.last_used_at)


async def test_the_last_uses_are_written_at_closing(
    app: Starlette, settings: Settings, partner: HeldKey
) -> None:
    before = await key_row(partner.access_key)

    async with app.router.lifespan_context(app):
        await call(app, "GET", "/v1/me", key=partner)

    engine = create_engines(settings).reader
    (row,) = (await stored(engine))["api_keys"]
    await engine.dispose()
    moments = [value for value in row if isinstance(value, datetime)]
    assert len(moments) == 3  # last_used_at, created_at and updated_at; expires_at is none
    assert moments[1:] == [before.created_at, before.updated_at]


async def test_a_refused_key_was_not_used(app: Starlette, operator: HeldKey) -> None:
    held = await hold_key(app, expires_at=PAST)

    await call(app, "GET", "/v1/me", key=held)
    await app.state.latchkey.last_used.write()

    assert (await key_row(held.access_key)).last_used_at is None


async def test_a_last_use_moves_only_forward(app: Starlette, operator: HeldKey) -> None:
    """Several workers write, not in the order of the uses."""
    late, early = datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)

    for moment in (late, early):
        app.state.latchkey.last_used.note(operator.id, moment)
        await app.state.latchkey.last_used.write()

    assert (await key_row(operator.access_key)).last_used_at == late


async def test_uses_that_could_not_be_written_are_kept_and_newer_uses_win(
    app: Starlette, operator: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    other = await hold_key(app, email="partner@example.com")
    last_used = app.state.latchkey.last_used
    session_class = type(app.state.db.scoped_session())
    await app.state.db.scoped_session.remove()
    last_used.note(operator.id, old)
    last_used.note(other.id, old)

    async def fail(self: Any) -> None:
        last_used.note(operator.id, new)
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(session_class, "commit", fail)
        with pytest.raises(ConnectionError):
            await last_used.write()
    await last_used.write()

    assert (await key_row(operator.access_key)).last_used_at == new
    assert (await key_row(other.access_key)).last_used_at == old


async def test_writing_nothing_costs_nothing(app: Starlette) -> None:
    with wire.listening() as commands:
        await app.state.latchkey.last_used.write()

    assert commands == []


async def test_an_owner_is_not_changed_by_what_its_keys_do(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    before = await user_row(partner.user_id)

    await call(app, "GET", "/v1/me", key=partner)
    await app.state.latchkey.last_used.write()
    await call(app, "DELETE", f"/v1/keys/{partner.access_key}", key=operator)

    assert (await user_row(partner.user_id)).updated_at == before.updated_at
