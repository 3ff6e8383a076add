"""`/v1/me/keys`: a key manages the keys of its owner, within its own bounds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.authentication.wire.credentials import AccessKey
from tests.api import HeldKey, assert_problem, call, hold_key, key_row, rfc3339, stored
from tests.requests import Answer

MINE = ["me.keys:read", "me.keys:write", "users:read"]
NIGHTLY = {"name": "nightly import", "mode": "bearer", "scopes": ["users:read"]}
NEVER_MADE = "lka_0000000000000000000000"
END = datetime(2100, 1, 1, tzinfo=UTC)
BEFORE, AFTER = rfc3339(END - timedelta(microseconds=1)), rfc3339(END + timedelta(microseconds=1))


@pytest.fixture(params=["bearer", "signed"])
async def caller(app: Starlette, request: pytest.FixtureRequest) -> HeldKey:
    """Return a partner's key without an expiry."""
    return await hold_key(app, email="partner@example.com", scopes=MINE, mode=request.param)


@pytest.fixture
async def sister(app: Starlette) -> HeldKey:
    """Return another key of the same owner."""
    return await hold_key(app, email="partner@example.com", scopes=["users:read"])


@pytest.fixture
async def stranger(app: Starlette) -> HeldKey:
    """A key of another owner, with no more scopes."""
    return await hold_key(app, email="stranger@example.com", scopes=["users:read"])


@pytest.fixture
async def guest(app: Starlette) -> HeldKey:
    """Return a key of the same owner with an expiry."""
    return await hold_key(app, email="partner@example.com", scopes=MINE, expires_at=END)


async def ask(
    app: Starlette, key: HeldKey, method: str, access_key: str = "", body: Any = None, *, behind: str = ""
) -> Answer:
    target = f"/v1/me/keys{'/' if access_key else ''}{access_key}{behind}"
    return await call(app, method, target, key=key, body=body)


async def rotate(app: Starlette, key: HeldKey, access_key: str, **fields: Any) -> Answer:
    return await ask(app, key, "POST", access_key, {"grace_s": 60, **fields}, behind="/rotate")


# ---------------------------------------------------------------------- the operations


async def test_a_key_is_created_for_the_owner_of_the_caller(app: Starlette, caller: HeldKey) -> None:
    answer = await ask(app, caller, "POST", body=NIGHTLY)

    key = await key_row(answer.json["access_key"])
    made = HeldKey(
        id=0, user_id=0, access_key=AccessKey(key.access_key), secret=answer.json["secret"], mode="bearer"
    )
    assert (answer.status, answer.headers["cache-control"]) == (201, "private, no-store")
    assert answer.headers["location"] == f"/v1/me/keys/{key.access_key}"
    assert (answer.json["user_id"], key.user_id) == (caller.user_id, caller.user_id)
    assert (await call(app, "GET", f"/v1/users/{caller.user_id}", key=made)).status == 200
    shown = (await call(app, "GET", answer.headers["location"], key=caller)).json
    assert {**shown, "secret": made.secret} == answer.json


async def test_the_owner_of_a_key_cannot_be_chosen(
    app: Starlette, caller: HeldKey, stranger: HeldKey
) -> None:
    answer = await ask(app, caller, "POST", body={**NIGHTLY, "user_id": stranger.user_id})

    assert_problem(answer, 422, "invalid_body")


async def test_the_list_holds_the_keys_of_the_owner_and_no_others(
    app: Starlette, caller: HeldKey, sister: HeldKey, stranger: HeldKey, guest: HeldKey
) -> None:
    revoked = await hold_key(app, email="partner@example.com", status="revoked")

    async def listed(query: str = "") -> list[str]:
        shown: list[str] = []
        target: str | None = f"/v1/me/keys?limit=2{query}"
        while target is not None:
            answer = await call(app, "GET", target, key=caller)
            assert answer.status == 200
            shown += [key["access_key"] for key in answer.json["data"]]
            target = answer.headers["link"][1:].partition(">")[0] if answer.json["next_cursor"] else None
        return shown

    assert await listed() == [one.access_key for one in (caller, sister, guest, revoked)]
    assert await listed("&status=active") == [one.access_key for one in (caller, sister, guest)]
    assert await listed("&expires_before=2101-01-01T00:00:00Z") == [guest.access_key]


async def test_a_cursor_of_the_operators_list_is_none_of_mine(
    app: Starlette, operator: HeldKey, caller: HeldKey, sister: HeldKey
) -> None:
    cursor = (await call(app, "GET", "/v1/keys?limit=1", key=operator)).json["next_cursor"]

    assert_problem(await ask(app, caller, "GET", behind=f"?cursor={cursor}"), 400, "invalid_cursor")


async def test_a_key_is_changed_rotated_and_revoked(app: Starlette, caller: HeldKey, sister: HeldKey) -> None:
    other = await hold_key(app, email="partner@example.com", scopes=MINE)  # the same call is signed only once
    changed = await ask(app, caller, "PATCH", sister.access_key, {"name": "renamed"})
    rotated = await rotate(app, caller, sister.access_key, version=1)
    new = msgspec.structs.replace(sister, secret=rotated.json["secret"])
    again = await rotate(app, other, sister.access_key, version=1)
    both = [(await call(app, "GET", "/v1/me", key=key)).status for key in (sister, new)]
    revoked = await ask(app, caller, "DELETE", sister.access_key)

    assert (changed.status, changed.json["name"]) == (200, "renamed")
    assert (rotated.status, rotated.json["name"], rotated.json["secret_version"]) == (200, "renamed", 2)
    assert rotated.headers["cache-control"] == "private, no-store"
    assert_problem(again, 409, "version_changed")
    assert both == [200, 200]
    assert revoked.status == 204
    assert_problem(await call(app, "GET", "/v1/me", key=new), 401, "key_revoked")
    assert (await ask(app, caller, "GET", sister.access_key)).json["status"] == "revoked"
    assert_problem(await rotate(app, other, sister.access_key), 409, "key_not_active")
    assert_problem(await ask(app, other, "PATCH", sister.access_key, {}), 409, "key_not_active")
    assert (await ask(app, other, "DELETE", sister.access_key)).status == 204


async def test_a_key_may_rotate_itself(app: Starlette, caller: HeldKey) -> None:
    rotated = await rotate(app, caller, caller.access_key)
    new = msgspec.structs.replace(caller, secret=rotated.json["secret"])

    assert (await ask(app, new, "GET", caller.access_key)).status == 200


# ---------------------------------------------------------------------- of another owner


@pytest.mark.parametrize("named", ["of another owner", "of nobody"])
@pytest.mark.parametrize(
    "method, body, behind",
    [
        pytest.param("GET", None, "", id="read"),
        pytest.param("HEAD", None, "", id="head"),
        pytest.param("PATCH", {"name": "x"}, "", id="change"),
        pytest.param("POST", {"grace_s": 0}, "/rotate", id="rotate"),
        pytest.param("DELETE", None, "", id="revoke"),
    ],
)
async def test_a_key_of_another_owner_is_as_much_there_as_one_of_nobody(
    app: Starlette,
    caller: HeldKey,
    stranger: HeldKey,
    named: str,
    method: str,
    body: dict[str, Any] | None,
    behind: str,
) -> None:
    before = await stored(app.state.db.reader)
    access_key = stranger.access_key if named == "of another owner" else NEVER_MADE

    answer = await ask(app, caller, method, access_key, body, behind=behind)

    assert_problem(answer, 404, "not_found")
    after = await stored(app.state.db.reader)
    assert (after["api_keys"], after["key_secrets"]) == (before["api_keys"], before["key_secrets"])


@pytest.mark.parametrize(
    "scopes, works",
    [
        pytest.param([], set(), id="none"),
        pytest.param(["keys:read", "keys:write"], set(), id="the operator's"),
        pytest.param(["me.keys:read"], {"GET"}, id="read"),
        pytest.param(["me.keys:write"], {"POST", "PATCH", "DELETE"}, id="write"),
    ],
)
async def test_each_needs_its_scope(
    app: Starlette, sister: HeldKey, scopes: list[Any], works: set[Any]
) -> None:
    caller = await hold_key(app, email="partner@example.com", scopes=[*scopes, "users:read"])

    answers = {
        "GET": [await ask(app, caller, "GET"), await ask(app, caller, "GET", sister.access_key)],
        "POST": [await ask(app, caller, "POST", body=NIGHTLY), await rotate(app, caller, sister.access_key)],
        "PATCH": [await ask(app, caller, "PATCH", sister.access_key, {"name": "x"})],
        "DELETE": [await ask(app, caller, "DELETE", sister.access_key)],
    }

    for method, given in answers.items():
        for answer in given:
            if method in works:
                assert answer.status in {200, 201, 204}
            else:
                assert_problem(answer, 403, "scope_missing")


async def test_my_keys_open_no_door_to_those_of_others(app: Starlette, caller: HeldKey) -> None:
    assert_problem(await call(app, "GET", "/v1/keys", key=caller), 403, "scope_missing")


# ---------------------------------------------------------------------- bounds of the calling key


async def test_a_key_never_gives_a_scope_that_it_lacks(
    app: Starlette, caller: HeldKey, sister: HeldKey
) -> None:
    rich = await hold_key(app, email="partner@example.com", scopes=["users:write"])
    before = (await stored(app.state.db.reader))["key_secrets"]

    answers = [
        await ask(app, caller, "POST", body={**NIGHTLY, "scopes": ["users:write"]}),
        await ask(app, caller, "PATCH", sister.access_key, {"scopes": ["users:write"]}),
        await ask(app, caller, "PATCH", rich.access_key, {"scopes": []}),
        await rotate(app, caller, rich.access_key),
    ]

    for answer in answers:
        assert_problem(answer, 403, "scope_not_held")
        assert "users:write" in answer.json["detail"]
    assert (await stored(app.state.db.reader))["key_secrets"] == before


@pytest.mark.parametrize(
    "expires_at, taken",
    [
        pytest.param(BEFORE, True, id="before"),
        pytest.param(rfc3339(END), True, id="with it"),
        pytest.param("2100-01-01T05:30:00+05:30", True, id="with it, elsewhere"),
        pytest.param(AFTER, False, id="after"),
        pytest.param(None, False, id="never"),
        pytest.param("9999-12-31T23:59:59-14:00", False, id="beyond the calendar"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_key_is_never_outlived_by_what_it_makes(
    app: Starlette, guest: HeldKey, method: str, expires_at: str | None, taken: bool
) -> None:
    before = await stored(app.state.db.reader)

    if method == "POST":
        answer = await ask(app, guest, "POST", body={**NIGHTLY, "expires_at": expires_at})
    else:
        answer = await ask(app, guest, "PATCH", guest.access_key, {"expires_at": expires_at})

    if taken:
        assert answer.status in {200, 201}
    else:
        assert_problem(answer, 422, "invalid_body")
        assert [error["pointer"] for error in answer.json["errors"]] == ["/expires_at"]
        assert await stored(app.state.db.reader) == before


async def test_without_an_end_a_new_key_would_outlive_one_that_has_one(
    app: Starlette, guest: HeldKey, caller: HeldKey
) -> None:
    assert_problem(await ask(app, guest, "POST", body=NIGHTLY), 422, "invalid_body")
    assert (await ask(app, caller, "POST", body=NIGHTLY)).json["expires_at"] is None


async def test_a_key_that_ends_gets_no_secret_of_one_that_outlives_it(
    app: Starlette, guest: HeldKey, sister: HeldKey
) -> None:
    """Otherwise a key for a day would give access for ever."""
    before = await stored(app.state.db.reader)

    rotated = await rotate(app, guest, sister.access_key)
    changed = await ask(app, guest, "PATCH", sister.access_key, {"name": "x"})

    for answer in (rotated, changed):
        assert_problem(answer, 403, "key_wider")
        assert "expire later than the calling key" in answer.json["detail"]
    assert await stored(app.state.db.reader) == before
    assert (await ask(app, guest, "GET", sister.access_key)).status == 200
    assert (await ask(app, guest, "DELETE", sister.access_key)).status == 204


async def test_a_key_that_never_ends_changes_and_rotates_one_that_does(
    app: Starlette, caller: HeldKey, guest: HeldKey
) -> None:
    assert (await rotate(app, caller, guest.access_key)).status == 200
    assert (await ask(app, caller, "PATCH", guest.access_key, {"expires_at": None})).status == 200


async def test_a_scope_that_no_route_declares_is_422(app: Starlette, caller: HeldKey) -> None:
    assert_problem(await ask(app, caller, "POST", body={**NIGHTLY, "scopes": ["a:b"]}), 422, "invalid_body")
