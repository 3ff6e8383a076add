"""The idempotency keys, operations and callers that are accepted."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response

from latchkey.models import ApiKey
from latchkey.service import shapes
from latchkey.service.operation import RouteError, route
from tests.api import HeldKey, assert_problem, call, stored
from tests.service.idempotency.endpoints import ANN, is_replay, plain, rows, send


@pytest.mark.parametrize(
    "key",
    ["", "a b", "a,b", "a;b", 'a"b', "a\\b", '"a', '"a";b=1', "é", '"é"', "a" * 256, f'"{"a" * 256}"', '""'],
)
async def test_a_key_of_another_form_is_refused(app: Starlette, operator: HeldKey, key: str) -> None:
    assert_problem(await send(app, key=operator, once=key), 400, "invalid_idempotency_key")
    assert await rows(app) == []


@pytest.mark.parametrize(
    "key", ["a" * 255, f'"{"a" * 255}"', '"' + r"\\" * 255 + '"', "!#$%&'()*+-./:<=>?@[]^_`{|}~"]
)
async def test_the_longest_key_is_taken_and_so_is_every_plain_character(
    app: Starlette, operator: HeldKey, key: str
) -> None:
    assert (await send(app, key=operator, once=key)).status == 201


async def test_two_keys_are_refused(app: Starlette, operator: HeldKey) -> None:
    answer = await call(
        app, "POST", "/v1/users", key=operator, body=ANN, headers=[("idempotency-key", "5")] * 2
    )

    assert_problem(answer, 400, "invalid_idempotency_key")


@pytest.mark.parametrize("path", ["/plain", "/open"])
async def test_a_key_is_refused_where_nothing_would_come_of_it(
    app: Starlette, operator: HeldKey, path: str
) -> None:
    before = await stored(app.state.db.reader)

    answer = await send(app, path, key=operator)

    assert_problem(answer, 400, "invalid_idempotency_key")
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize("key", ["5", "a,b"])
async def test_a_key_means_nothing_where_nothing_is_changed(
    app: Starlette, operator: HeldKey, key: str
) -> None:
    answer = await send(app, "/v1/users", key=operator, method="GET", body=None, once=key)

    assert (answer.status, is_replay(answer)) == (200, False)
    assert await rows(app) == []


@pytest.mark.parametrize(
    "change, status, code",
    [
        pytest.param({"status": "revoked"}, 401, "key_revoked", id="revoked"),
        pytest.param({"scopes": ()}, 403, "scope_missing", id="without the scope"),
        pytest.param({"allowed_networks": ("192.0.2.0/24",)}, 403, "network_not_allowed", id="elsewhere"),
    ],
)
async def test_a_replay_is_for_those_who_may_call(
    app: Starlette, operator: HeldKey, change: dict[str, Any], status: int, code: str
) -> None:
    await send(app, key=operator)
    async with app.state.db.scoped_session() as session:
        await (await ApiKey.filter_by(id=operator.id).one()).update(**change)
        await session.commit()

    assert_problem(await send(app, key=operator), status, code)


class Blurred(shapes.Output, frozen=True):
    """An answer that hides a missing field."""

    one_time = frozenset({"password"})


@pytest.mark.parametrize(
    "declaration, reason",
    [
        pytest.param({"method": "GET", "any_key": True}, "change something", id="a safe method"),
        pytest.param({"public": True}, "the calls of different callers", id="a public route"),
        pytest.param(
            {"any_key": True, "answers": Response}, "stores the response", id="an answer of its own"
        ),
        pytest.param({"any_key": True, "answers": Blurred}, "password", id="a secret that is not there"),
    ],
)
def test_a_route_that_could_not_keep_the_promise_does_not_start(
    declaration: dict[str, Any], reason: str
) -> None:
    declaration = {"method": "POST", "answers": shapes.User, **declaration}

    with pytest.raises(RouteError, match=reason):
        route(path="/x", endpoint=plain, idempotent=True, **declaration)
