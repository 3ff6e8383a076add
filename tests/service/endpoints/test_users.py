"""`/v1/users`: every sentence of its description."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event
from starlette.applications import Starlette

from latchkey.models import ApiKey, User
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, key_row, rfc3339, stored, user_row

ANN = {"email": "ann@example.com", "name": "Ann"}


@pytest.fixture
async def ann(app: Starlette, operator: HeldKey) -> dict[str, Any]:
    """Return the answer to creating a user."""
    return (await call(app, "POST", "/v1/users", key=operator, body=ANN)).json


@pytest.fixture
async def crowd(app: Starlette, operator: HeldKey) -> list[int]:
    """Return the ids of 201 users, including the operator's owner, in their order."""
    async with app.state.db.scoped_session() as session:
        session.add_all([User(email=f"user{n}@example.com", name=f"User {n}") for n in range(200)])
        await session.commit()
    return [user.id for user in await User.filter().order_by("id").all()]


async def test_a_created_user_is_answered_as_it_is_stored(app: Starlette, operator: HeldKey) -> None:
    answer = await call(app, "POST", "/v1/users", key=operator, body=ANN)

    user = await User.filter(email="ann@example.com").one()
    assert answer.status == 201
    assert answer.headers["location"] == f"/v1/users/{user.id}"
    assert answer.json == {
        "id": user.id,
        **ANN,
        "status": "active",
        "limits": [],
        "quota": None,
        "external_id": None,
        "meta": {},
        "created_at": rfc3339(user.created_at),
        "updated_at": rfc3339(user.updated_at),
    }


async def test_the_location_leads_to_the_same_user(app: Starlette, operator: HeldKey) -> None:
    made = await call(app, "POST", "/v1/users", key=operator, body=ANN)
    read = await call(app, "GET", made.headers["location"], key=operator)

    assert (read.status, read.json) == (200, made.json)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"email": "a@b", "name": "x"}, id="the shortest"),
        pytest.param(
            {"email": "ΐ" * 252 + "@b", "name": "x" * 200}, id="the longest, and widest when folded"
        ),
        pytest.param({"email": "😀" * 252 + "@b", "name": "😀" * 200}, id="four bytes a character"),
        pytest.param(
            {"email": "Ann+x'\"\\%_;--@b", "name": "O'Brien \\ % _ `; --"}, id="what SQL would mind"
        ),
        pytest.param({"email": "Ann@Example.COM", "name": "  blanks  "}, id="as given"),
        pytest.param(
            {"email": "\u200b@\u202e", "name": "\u2028\ufeff"}, id="not seen but no control characters"
        ),
    ],
)
async def test_values_within_the_bounds_are_returned_unchanged(
    app: Starlette, operator: HeldKey, body: dict[str, str]
) -> None:
    made = await call(app, "POST", "/v1/users", key=operator, body=body)

    read = await call(app, "GET", f"/v1/users/{made.json['id']}", key=operator)
    assert made.status == 201
    assert {name: read.json[name] for name in body} == body


EQUAL_EMAILS = [
    pytest.param("ann@example.com", "ANN@Example.Com", id="letter case"),
    pytest.param("straße@example.com", "STRASSE@example.com", id="ß"),
    pytest.param("İ@example.com", "i̇@example.com", id="İ"),
    pytest.param("ΣΑΣ@example.com", "σας@example.com", id="final sigma"),
]
DIFFERENT_EMAILS = [
    pytest.param("ann@example.com", "änn@example.com", id="an accent"),
    pytest.param("i@example.com", "İ@example.com", id="a dot"),
    pytest.param("ann@example.com", "ann@example.com.", id="a point at the end"),
]


@pytest.mark.parametrize("first, second", EQUAL_EMAILS)
async def test_a_taken_email_is_409_in_whatever_letter_case(
    app: Starlette, operator: HeldKey, first: str, second: str
) -> None:
    await call(app, "POST", "/v1/users", key=operator, body={"email": first, "name": "First"})
    before = await stored(app.state.db.reader)

    answer = await call(app, "POST", "/v1/users", key=operator, body={"email": second, "name": "Second"})

    assert_problem(answer, 409, "email_taken")
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize("first, second", DIFFERENT_EMAILS)
async def test_emails_that_fold_differently_are_different(
    app: Starlette, operator: HeldKey, first: str, second: str
) -> None:
    await call(app, "POST", "/v1/users", key=operator, body={"email": first, "name": "First"})

    answer = await call(app, "POST", "/v1/users", key=operator, body={"email": second, "name": "Second"})

    assert answer.status == 201


async def test_a_deleted_users_email_stays_taken(
    app: Starlette, operator: HeldKey, ann: dict[str, Any]
) -> None:
    await call(app, "DELETE", f"/v1/users/{ann['id']}", key=operator)

    assert_problem(await call(app, "POST", "/v1/users", key=operator, body=ANN), 409, "email_taken")


# ---------------------------------------------------------------------- change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"name": "Ann B."}, id="name"),
        pytest.param({"email": "b@example.com"}, id="email"),
        pytest.param({"email": "ANN@example.com"}, id="letter case of its own email"),
        pytest.param({"status": "blocked"}, id="status"),
        pytest.param({"email": "c@example.com", "name": "C", "status": "blocked"}, id="all"),
    ],
)
async def test_a_change_is_answered_as_it_is_stored_and_what_is_absent_stays(
    app: Starlette, operator: HeldKey, ann: dict[str, Any], change: dict[str, str]
) -> None:
    answer = await call(app, "PATCH", f"/v1/users/{ann['id']}", key=operator, body=change)

    user = await user_row(ann["id"])
    assert answer.status == 200
    assert answer.json == {**ann, **change, "updated_at": rfc3339(user.updated_at)}
    assert answer.json["updated_at"] != ann["updated_at"]
    assert (user.email, user.name, user.status) == tuple(answer.json[n] for n in ("email", "name", "status"))


@pytest.mark.parametrize(
    "change", [{}, {"name": "Ann"}, {**ANN, "status": "active"}], ids=["{}", "name", "all"]
)
async def test_a_change_to_what_is_there_changes_nothing(
    app: Starlette, operator: HeldKey, ann: dict[str, Any], change: dict[str, Any]
) -> None:
    before = await stored(app.state.db.reader)

    answer = await call(app, "PATCH", f"/v1/users/{ann['id']}", key=operator, body=change)

    assert (answer.status, answer.json) == (200, ann)
    assert await stored(app.state.db.reader) == before


async def test_an_email_cannot_be_changed_to_a_taken_one(
    app: Starlette, operator: HeldKey, ann: dict[str, Any]
) -> None:
    before = await stored(app.state.db.reader)

    answer = await call(
        app,
        "PATCH",
        f"/v1/users/{ann['id']}",
        key=operator,
        body={"email": "OPERATOR@example.com", "name": "X"},
    )

    assert_problem(answer, 409, "email_taken")
    assert await stored(app.state.db.reader) == before


async def test_the_keys_of_a_blocked_user_rest_until_it_is_unblocked(
    app: Starlette, operator: HeldKey
) -> None:
    held = await hold_key(app, email=ANN["email"], scopes=[])

    await call(app, "PATCH", f"/v1/users/{held.user_id}", key=operator, body={"status": "blocked"})
    blocked = await call(app, "GET", "/v1/me", key=held)
    await call(app, "PATCH", f"/v1/users/{held.user_id}", key=operator, body={"status": "active"})
    unblocked = await call(app, "GET", "/v1/me", key=held)

    assert_problem(blocked, 401, "owner_inactive")
    assert unblocked.status == 200


# ---------------------------------------------------------------------- delete


async def test_deleting_a_user_revokes_its_keys_in_the_same_transaction(
    app: Starlette, operator: HeldKey
) -> None:
    held = [await hold_key(app, email=ANN["email"], mode=mode) for mode in ("bearer", "signed")]
    before = await key_row(held[0].access_key)

    with wire.listening() as commands:
        answer = await call(app, "DELETE", f"/v1/users/{held[0].user_id}", key=operator)

    assert (answer.status, answer.body) == (204, b"")
    assert commands.count("COMMIT") == 1
    assert (await user_row(held[0].user_id)).status == "deleted"
    assert [(await key_row(one.access_key)).status for one in held] == ["revoked", "revoked"]
    assert (await key_row(held[0].access_key)).updated_at > before.updated_at
    assert (await key_row(operator.access_key)).status == "active"
    for one in held:
        assert_problem(await call(app, "GET", "/v1/me", key=one), 401, "key_revoked")


async def test_no_key_is_made_while_its_user_is_being_deleted(
    app: Starlette, operator: HeldKey, ann: dict[str, Any]
) -> None:
    """Whichever call comes first, the key is either not created, or revoked."""
    key = {"user_id": ann["id"], "name": "n", "mode": "bearer", "scopes": []}

    async with asyncio.TaskGroup() as group:
        made = group.create_task(call(app, "POST", "/v1/keys", key=operator, body=key))
        gone = group.create_task(call(app, "DELETE", f"/v1/users/{ann['id']}", key=operator))

    assert gone.result().status == 204
    assert made.result().status in {201, 409}
    keys = await ApiKey.filter(user_id=ann["id"]).all()
    assert [one for one in keys if one.status != "revoked"] == []


async def test_a_user_whose_keys_cannot_be_revoked_is_not_deleted(app: Starlette, operator: HeldKey) -> None:
    held = await hold_key(app, email=ANN["email"])
    before = await stored(app.state.db.reader)

    @event.listens_for(app.state.db.engine.sync_engine, "before_cursor_execute")
    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE api_keys"):
            raise ZeroDivisionError

    answer = await call(app, "DELETE", f"/v1/users/{held.user_id}", key=operator)

    assert_problem(answer, 500, "internal_error")
    assert await stored(app.state.db.reader) == before


async def test_a_deleted_user_can_be_read_and_deleted_again_but_not_changed(
    app: Starlette, operator: HeldKey, ann: dict[str, Any]
) -> None:
    path = f"/v1/users/{ann['id']}"
    await call(app, "DELETE", path, key=operator)
    before = await stored(app.state.db.reader)

    read = await call(app, "GET", path, key=operator)
    changed = await call(app, "PATCH", path, key=operator, body={"status": "active"})
    unchanged = await call(app, "PATCH", path, key=operator, body={})
    again = await call(app, "DELETE", path, key=operator)

    assert (read.status, read.json["status"]) == (200, "deleted")
    assert_problem(changed, 409, "user_deleted")
    assert_problem(unchanged, 409, "user_deleted")
    assert again.status == 204
    assert await stored(app.state.db.reader) == before


# ---------------------------------------------------------------------- the owner of the calling key

ENDS = {"delete": ("DELETE", None), "block": ("PATCH", {"status": "blocked", "name": "x"})}


@pytest.mark.parametrize("query", ["", "?force=false"], ids=["", "not forced"])
@pytest.mark.parametrize("caller", ["operator", "signer"])
@pytest.mark.parametrize("method, body", ENDS.values(), ids=ENDS)
async def test_a_key_does_not_end_its_own_owner_by_accident(
    app: Starlette,
    operator: HeldKey,
    signer: HeldKey,
    caller: str,
    method: str,
    body: dict[str, str] | None,
    query: str,
) -> None:
    key = {"operator": operator, "signer": signer}[caller]
    before = await stored(app.state.db.reader)
    path = f"/v1/users/{operator.user_id}"

    answer = await call(app, method, path + query, key=key, body=body)

    assert_problem(answer, 409, "user_owns_caller")
    after = await stored(app.state.db.reader)
    assert {**after, "nonces": None} == {**before, "nonces": None}
    assert (await call(app, "GET", path, key=operator)).json["status"] == "active"


@pytest.mark.parametrize("method, body", ENDS.values(), ids=ENDS)
async def test_it_does_when_it_is_forced_and_ends_with_it(
    app: Starlette, operator: HeldKey, signer: HeldKey, method: str, body: dict[str, str] | None
) -> None:
    answer = await call(app, method, f"/v1/users/{operator.user_id}?force=true", key=signer, body=body)

    assert answer.status == {"DELETE": 204, "PATCH": 200}[method]
    assert (await user_row(operator.user_id)).status == {"DELETE": "deleted", "PATCH": "blocked"}[method]
    for key in (operator, signer):
        assert (await call(app, "GET", "/v1/me", key=key)).status == 401


@pytest.mark.parametrize("body", [{}, {"name": "x"}, {"status": "active"}, {"limits": []}], ids=str)
async def test_any_other_change_of_its_owner_needs_no_force(
    app: Starlette, operator: HeldKey, body: dict[str, Any]
) -> None:
    answer = await call(app, "PATCH", f"/v1/users/{operator.user_id}", key=operator, body=body)

    assert answer.status == 200


@pytest.mark.parametrize("method, body", ENDS.values(), ids=ENDS)
async def test_force_changes_nothing_for_another_user(
    app: Starlette, operator: HeldKey, ann: dict[str, Any], method: str, body: dict[str, str] | None
) -> None:
    answer = await call(app, method, f"/v1/users/{ann['id']}?force=true", key=operator, body=body)

    assert answer.status == {"DELETE": 204, "PATCH": 200}[method]


async def test_a_refused_end_of_its_owner_stores_no_answer(app: Starlette, operator: HeldKey) -> None:
    """The Idempotency-Key belongs to this call, which may be made again."""
    once = [("idempotency-key", "5")]
    path = f"/v1/users/{operator.user_id}"

    first = await call(app, "DELETE", path, key=operator, headers=once)
    forced = await call(app, "DELETE", f"{path}?force=true", key=operator, headers=once)

    assert_problem(first, 409, "user_owns_caller")
    assert forced.status == 204


# ---------------------------------------------------------------------- ids


@pytest.mark.parametrize("method", ["GET", "HEAD", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "id",
    [
        *("0", "-1", "01", "+1", "1.0", "1e3", "1_0", "abc", "%20", "%31x", "1%00", "1%0A", "%EF%BC%91"),
        *(str(2**63 - 1), str(2**63), str(10**30), "999999999"),
    ],
)
async def test_an_id_that_names_no_user_is_404(
    app: Starlette, operator: HeldKey, method: str, id: str
) -> None:
    answer = await call(
        app, method, f"/v1/users/{id}", key=operator, body={"name": "x"} if method == "PATCH" else None
    )

    assert_problem(answer, 404, "not_found")


# ---------------------------------------------------------------------- lists


async def every_page(app: Starlette, operator: HeldKey, target: str | None) -> list[Any]:
    """Follow the links of a list to its end."""
    pages = []
    while target is not None:
        answer = await call(app, "GET", target, key=operator)
        assert answer.status == 200
        pages.append(answer.json["data"])
        link = answer.headers.get("link")
        assert (link is None) is (answer.json["next_cursor"] is None)
        target = link and link.removeprefix("<").removesuffix('>; rel="next"')
        assert target is None or answer.json["next_cursor"] in target
    return pages


@pytest.mark.parametrize(
    "query, sizes",
    [
        pytest.param("", [50, 50, 50, 50, 1], id="fifty unless told"),
        pytest.param("?limit=67", [67, 67, 67], id="the last page is full"),
        pytest.param("?limit=200", [200, 1], id="the largest page"),
        pytest.param("?limit=100&status=active", [100, 100, 1], id="with a filter"),
    ],
)
async def test_following_the_links_shows_every_user_once_in_the_order_of_ids(
    app: Starlette, operator: HeldKey, crowd: list[int], query: str, sizes: list[int]
) -> None:
    pages = await every_page(app, operator, f"/v1/users{query}")

    assert [len(page) for page in pages] == sizes
    assert [user["id"] for page in pages for user in page] == crowd


async def test_a_page_may_hold_one(app: Starlette, operator: HeldKey, ann: dict[str, Any]) -> None:
    pages = await every_page(app, operator, "/v1/users?limit=1")

    assert [[user["id"] for user in page] for page in pages] == [[operator.user_id], [ann["id"]]]
    assert pages[1] == [ann]


@pytest.mark.parametrize(
    "query, found",
    [
        pytest.param("email=ann@example.com", ["ann"], id="email"),
        pytest.param("email=ANN%40EXAMPLE.COM", ["ann"], id="email in any letter case"),
        pytest.param("email=ann", [], id="a part of an email"),
        pytest.param("email=%25", [], id="no pattern"),
        pytest.param("email=", [], id="an empty email"),
        pytest.param("email=%00", [], id="a null character"),
        pytest.param("email=null", [], id="an email null"),
        pytest.param("status=active", ["operator"], id="active"),
        pytest.param("status=deleted", ["ann"], id="deleted"),
        pytest.param("status=blocked", [], id="blocked"),
        pytest.param("status=deleted&email=ann@example.com", ["ann"], id="both"),
        pytest.param("status=active&email=ann@example.com", [], id="both, contradicting"),
        pytest.param("", ["operator", "ann"], id="all, the deleted too"),
    ],
)
async def test_a_filter_narrows_and_one_that_matches_nothing_is_an_empty_page(
    app: Starlette, operator: HeldKey, ann: dict[str, Any], query: str, found: list[Any]
) -> None:
    await call(app, "DELETE", f"/v1/users/{ann['id']}", key=operator)

    answer = await call(app, "GET", f"/v1/users?{query}", key=operator)

    assert answer.status == 200
    assert [user["email"].partition("@")[0] for user in answer.json["data"]] == found
    assert answer.json["next_cursor"] is None


async def test_head_of_a_list_links_on(app: Starlette, operator: HeldKey, ann: dict[str, Any]) -> None:
    answer = await call(app, "HEAD", "/v1/users?limit=1", key=operator)

    assert answer.status == 200
    assert 'rel="next"' in answer.headers["link"]
