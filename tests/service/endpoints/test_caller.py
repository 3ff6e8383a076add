"""An endpoint takes the caller as `caller: Principal`."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey import Principal
from latchkey.service.operation import Operation, RouteError, route
from tests.api import HeldKey, assert_problem, call, hold_key


class Told(msgspec.Struct):
    owner: int
    email: str
    access_key: str
    scopes: list[str]
    is_the_user: bool


async def tell(request: Request, caller: Principal) -> Told:
    return Told(
        owner=caller.user.id,
        email=caller.user.email,
        access_key=caller.key.access_key,
        scopes=sorted(caller.scopes),
        is_the_user=caller is request.user,
    )


async def refund(caller: Principal) -> None:
    caller.require_scope("users:write")


async def named(caller: str) -> None:
    assert caller == "ann"


@pytest.fixture
def routes() -> Sequence[Operation]:
    return [
        route("GET", "/tell", tell, scope="users:read"),
        route("POST", "/tell", tell, any_key=True),
        route("POST", "/refund", refund, any_key=True),
        route("GET", "/named/{caller}", named, public=True),
    ]


@pytest.mark.parametrize("mode", ["bearer", "signed"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_it_is_the_owner_the_key_and_the_scopes(app: Starlette, mode: str, method: str) -> None:
    key = await hold_key(app, mode=mode, scopes=["users:read", "keys:read"])

    told = await call(app, method, "/tell", key=key)

    assert told.json == {
        "owner": key.user_id,
        "email": "operator@example.com",
        "access_key": key.access_key,
        "scopes": ["keys:read", "users:read"],
        "is_the_user": True,
    }


async def test_a_scope_that_the_endpoint_asks_for_is_a_problem_where_it_is_missing(app: Starlette) -> None:
    holder = await hold_key(app, scopes=["users:write"])
    other = await hold_key(app, scopes=["users:read"])

    refused = await call(app, "POST", "/refund", key=other)

    assert (await call(app, "POST", "/refund", key=holder)).status == 200
    assert_problem(refused, 403, "scope_missing")
    assert refused.json["detail"] == "The key lacks the scope users:write."


async def test_a_name_in_the_path_may_be_the_same(app: Starlette) -> None:
    assert (await call(app, "GET", "/named/ann")).status == 200


async def untyped(caller: HeldKey) -> None: ...
async def mistyped(caller: Request) -> None: ...
async def doubtful(caller: Principal | None) -> None: ...


@pytest.mark.parametrize("endpoint", [untyped, mistyped, doubtful])
def test_another_type_is_refused_at_the_start(endpoint: Callable[..., Any]) -> None:
    with pytest.raises(RouteError, match="the endpoint's caller must have the type Principal, not"):
        route("POST", "/x", endpoint, any_key=True)


def test_a_public_endpoint_has_none() -> None:
    with pytest.raises(RouteError, match="a public endpoint does not authenticate"):
        route("POST", "/x", refund, public=True)
