"""A team's own scope: only a key that has it may give it."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.app import create_app
from latchkey.service.operation import RouteError, route
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import KEYRING, opened


class Count(msgspec.Struct):
    count: int


async def count_items() -> Count:
    return Count(count=0)


ROUTES = [route("GET", "/v1/items", count_items, scope="items:read")]
OURS = ["keys:write", "me.keys:write", "users:read"]


@pytest.fixture
async def app(settings: Settings, loggers: None) -> AsyncIterator[Starlette]:
    async with opened(lambda: create_app(settings, routes=ROUTES, scopes=["items:refund"]), settings) as app:
        yield app


def new_key(holder: HeldKey, *scopes: str) -> dict[str, object]:
    return {"user_id": holder.user_id, "name": "n", "mode": "bearer", "scopes": list(scopes)}


@pytest.mark.parametrize("scope", ["items:read", "items:refund"])
async def test_a_holder_gives_it_and_the_new_key_may_give_it_too(app: Starlette, scope: str) -> None:
    first = await hold_key(app, scopes=[*OURS, scope])

    given = await call(app, "POST", "/v1/keys", key=first, body=new_key(first, scope))
    mine = await call(
        app, "POST", "/v1/me/keys", key=first, body={"name": "n", "mode": "bearer", "scopes": [scope]}
    )

    assert (given.status, given.json["scopes"]) == (201, [scope])
    assert (mine.status, mine.json["scopes"]) == (201, [scope])


@pytest.mark.parametrize("scope", ["items:read", "items:refund"])
async def test_an_operator_who_lacks_it_gives_it_to_nobody(app: Starlette, scope: str) -> None:
    operator = await hold_key(app, scopes=OURS)

    created = await call(app, "POST", "/v1/keys", key=operator, body=new_key(operator, scope))
    widened = await call(
        app, "PATCH", f"/v1/keys/{operator.access_key}", key=operator, body={"scopes": [*OURS, scope]}
    )

    assert_problem(created, 403, "scope_not_held")
    assert_problem(widened, 403, "scope_not_held")


async def test_one_that_nobody_declared_is_given_by_nobody(app: Starlette) -> None:
    operator = await hold_key(app)

    refused = await call(app, "POST", "/v1/keys", key=operator, body=new_key(operator, "items:fly"))

    assert_problem(refused, 422, "invalid_body")
    assert "items:read" in refused.json["errors"][0]["detail"]


@pytest.mark.parametrize("scope", ["", "items", "Items:read", "a:b:c", "a:b\n"])
def test_a_scope_of_another_form_is_refused_when_the_application_is_built(scope: str, loggers: None) -> None:
    with pytest.raises(RouteError, match="is not of the form noun:verb"):
        create_app(Settings(keyring=KEYRING), scopes=[scope])
