"""`/v1/scopes`: scopes of other services, which keys can have like those of this service's routes."""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.models import Scope
from latchkey.service.authentication.scopes import holds, lacking
from tests.api import HeldKey, assert_problem, call, hold_key

ORDERS = {"name": "orders:read", "description": "Read orders."}


@pytest.fixture
async def orders(app: Starlette, operator: HeldKey) -> dict[str, Any]:
    """Return the answer to registering a scope."""
    return (await call(app, "POST", "/v1/scopes", key=operator, body=ORDERS)).json


def new_key(owner: HeldKey, *scopes: str) -> dict[str, Any]:
    return {"user_id": owner.user_id, "name": "n", "mode": "bearer", "scopes": list(scopes)}


async def hold_new(app: Starlette, operator: HeldKey, *scopes: str) -> HeldKey:
    """Create a key over HTTP, as a caller who holds every scope."""
    key = (await call(app, "POST", "/v1/keys", key=operator, body=new_key(operator, *scopes))).json
    return HeldKey(
        id=0, user_id=operator.user_id, access_key=key["access_key"], secret=key["secret"], mode="bearer"
    )


@pytest.fixture
async def everything(app: Starlette, orders: dict[str, Any]) -> HeldKey:
    """Return an operator's key that also holds the registered scopes."""
    return await hold_key(app, scopes=[*sorted(app.state.latchkey.key_rules.scopes), "orders:*"])


async def test_a_scope_is_registered_listed_and_removed(app: Starlette, operator: HeldKey) -> None:
    made = await call(app, "POST", "/v1/scopes", key=operator, body=ORDERS)
    listed = await call(app, "GET", "/v1/scopes", key=operator)
    removed = await call(app, "DELETE", "/v1/scopes/orders:read", key=operator)
    again = await call(app, "DELETE", "/v1/scopes/orders:read", key=operator)

    assert (made.status, made.headers["location"]) == (201, "/v1/scopes/orders:read")
    assert {name: made.json[name] for name in ORDERS} == ORDERS
    assert listed.json == {"data": [made.json], "next_cursor": None}
    assert removed.status == 204
    assert_problem(again, 404, "not_found")


@pytest.mark.parametrize(
    "name", ["orders:read", "users:read", "me.keys:write"], ids=["registered", "declared", "declared too"]
)
async def test_a_scope_exists_once(
    app: Starlette, operator: HeldKey, orders: dict[str, Any], name: str
) -> None:
    assert_problem(
        await call(app, "POST", "/v1/scopes", key=operator, body={"name": name}), 409, "scope_taken"
    )


@pytest.mark.parametrize(
    "name",
    [
        "orders",
        "Orders:read",
        "orders:*",
        "*:read",
        "*",
        "orders:read ",
        "orders: read",
        "orders:read\n",
        "a:b:c",
        "",
        ":",
        "o" * 41 + ":r",
    ],
)
async def test_only_a_noun_and_a_verb_make_a_scope(app: Starlette, operator: HeldKey, name: str) -> None:
    assert_problem(
        await call(app, "POST", "/v1/scopes", key=operator, body={"name": name}), 422, "invalid_body"
    )


async def test_a_key_can_have_a_registered_scope(app: Starlette, everything: HeldKey) -> None:
    made = await call(
        app, "POST", "/v1/keys", key=everything, body=new_key(everything, "orders:read", "orders:*")
    )
    changed = await call(
        app, "PATCH", f"/v1/keys/{made.json['access_key']}", key=everything, body={"scopes": ["orders:read"]}
    )

    assert (made.status, made.json["scopes"]) == (201, ["orders:read", "orders:*"])
    assert (changed.status, changed.json["scopes"]) == (200, ["orders:read"])


@pytest.mark.parametrize(
    "scope", ["orders:write", "order:*", "orders:r*", "*", "*:*", "*:read", "orders:", "orders", "nothing:*"]
)
async def test_a_key_cannot_have_another_scope(app: Starlette, everything: HeldKey, scope: str) -> None:
    """Exact names, and `:*` behind a noun that exists."""
    refused = await call(
        app, "POST", "/v1/keys", key=everything, body=new_key(everything, "users:read", scope)
    )

    assert_problem(refused, 422, "invalid_body")
    assert refused.json["errors"][0]["pointer"] == "/scopes/1"


async def test_a_caller_gives_only_what_it_holds(
    app: Starlette, orders: dict[str, Any], operator: HeldKey
) -> None:
    refused = await call(app, "POST", "/v1/keys", key=operator, body=new_key(operator, "orders:read"))
    one = await hold_key(app, scopes=["keys:write", "orders:read"])
    given = await call(app, "POST", "/v1/keys", key=one, body=new_key(one, "orders:read"))
    wider = await call(app, "POST", "/v1/keys", key=one, body=new_key(one, "orders:*"))

    assert_problem(refused, 403, "scope_not_held")
    assert given.status == 201
    assert_problem(wider, 403, "scope_not_held")
    assert "orders:*" in wider.json["detail"]


@pytest.mark.parametrize(
    "held, path, status",
    [
        (["users:*"], "/v1/users", 200),
        (["users:*"], "/v1/keys", 403),
        (["keys:*", "users:*"], "/v1/keys", 200),
        (["me.keys:*"], "/v1/me/keys", 200),
        (["me.keys:*"], "/v1/keys", 403),
    ],
)
async def test_a_star_gives_every_verb_of_its_noun_and_nothing_else(
    app: Starlette, held: list[str], path: str, status: int
) -> None:
    key = await hold_key(app, scopes=held)

    assert (await call(app, "GET", path, key=key)).status == status


async def test_a_scope_in_use_is_not_removed_and_its_holders_are_named(
    app: Starlette, operator: HeldKey, everything: HeldKey
) -> None:
    held = [await hold_new(app, everything, "users:read", "orders:read") for _ in range(12)]
    await call(app, "POST", "/v1/scopes", key=operator, body={"name": "orders:reader"})

    refused = await call(app, "DELETE", "/v1/scopes/orders:read", key=operator)
    other = await call(app, "DELETE", "/v1/scopes/orders:reader", key=operator)
    for key in held:
        await call(app, "DELETE", f"/v1/keys/{key.access_key}", key=operator)
    removed = await call(app, "DELETE", "/v1/scopes/orders:read", key=operator)

    assert_problem(refused, 409, "scope_in_use")
    assert all(key.access_key in refused.json["detail"] for key in held[:10])
    assert refused.json["detail"].endswith(" and 2 more.")
    assert (other.status, removed.status) == (204, 204)


async def test_an_underscore_is_no_wildcard(app: Starlette, operator: HeldKey) -> None:
    for name in ("a_b:read", "axb:read"):
        await call(app, "POST", "/v1/scopes", key=operator, body={"name": name})
    await hold_key(app, scopes=["axb:read"])

    assert (await call(app, "DELETE", "/v1/scopes/a_b:read", key=operator)).status == 204


async def test_a_removal_and_a_new_key_do_not_pass_each_other(
    app: Starlette, operator: HeldKey, everything: HeldKey
) -> None:
    """Either the scope stays, or no key has it."""
    answers = await asyncio.gather(
        call(app, "DELETE", "/v1/scopes/orders:read", key=operator),
        call(app, "POST", "/v1/keys", key=everything, body=new_key(everything, "orders:read")),
    )

    removed, made = (answer.status for answer in answers)
    assert (removed, made) in {(204, 422), (409, 201)}


async def test_pages_of_scopes(app: Starlette, operator: HeldKey) -> None:
    async with app.state.db.scoped_session() as session:
        session.add_all([Scope(name=f"n{n}:read", noun=f"n{n}") for n in range(5)])
        await session.commit()

    first = await call(app, "GET", "/v1/scopes?limit=3", key=operator)
    rest = await call(app, "GET", f"/v1/scopes?limit=3&cursor={first.json['next_cursor']}", key=operator)

    names = [one["name"] for page in (first, rest) for one in page.json["data"]]
    assert names == [f"n{n}:read" for n in range(5)]


@pytest.mark.parametrize(
    "held, wanted, expected",
    [
        (["a:b"], "a:b", True),
        (["a:*"], "a:b", True),
        (["a:*"], "a:*", True),
        (["a:b"], "a:*", False),
        (["a:*"], "ab:c", False),
        (["*"], "a:b", False),
        (["*:*"], "a:b", False),
        (["a.b:*"], "a:c", False),
        ([], "a:b", False),
    ],
)
def test_held_scopes_include_the_wanted_one(held: list[str], wanted: str, expected: bool) -> None:
    assert holds(held, wanted) is expected
    assert lacking(held, [wanted]) == ([] if expected else [wanted])
