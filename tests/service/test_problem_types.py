"""A team's own problems: registered when the application is built, answered and explained like Latchkey's."""

import json
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.service.app import create_app
from latchkey.service.operation import RouteError, route
from latchkey.service.problems import Problem
from latchkey.service.problems.kinds import KINDS
from latchkey.service.problems.registry import (
    ProblemType,
    ProblemTypeError,
    UnknownProblemError,
    known,
    register,
)
from latchkey.service.settings import Settings
from tests.api import assert_problem, call
from tests.conftest import KEYRING, opened

CLOSED = ProblemType(
    409,
    "The order is closed",
    "An order that is closed takes no more items. Open another one.",
    code="order_closed",
)


async def close(request: Request) -> None:
    """Raise a problem."""
    raise Problem(request.query_params.get("code", "order_closed"), "Order 7 is closed.")


async def misspell(request: Request) -> None:
    """Raise a code that is not registered."""
    raise Problem("order_closd")


ROUTES = [
    route("POST", "/close", close, public=True, problems=("order_closed",)),
    route("POST", "/misspell", misspell, public=True),
]


@pytest.fixture
def unregister() -> Iterator[None]:
    yield
    register(())


@pytest.fixture
async def app(settings: Settings, loggers: None, unregister: None) -> AsyncIterator[Starlette]:
    async with opened(lambda: create_app(settings, routes=ROUTES, problems=[CLOSED]), settings) as app:
        yield app


async def test_it_is_answered_explained_and_described(app: Starlette) -> None:
    answer = await call(app, "POST", "/close")
    explained = await call(app, "GET", "/problems/order_closed")
    document = json.loads(app.state.latchkey.openapi)

    assert_problem(answer, 409, "order_closed")
    assert answer.json["detail"] == "Order 7 is closed."
    assert explained.json["explanation"] == CLOSED.explanation
    assert "order_closed" in document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert document["components"]["examples"]["order_closed"]["value"]["title"] == CLOSED.title
    assert "order_closed" in document["paths"]["/close"]["post"]["responses"]["409"]["$ref"]


async def test_a_code_that_is_not_registered_is_an_error_with_a_sentence(
    app: Starlette, log_lines: list[logging.LogRecord]
) -> None:
    answer = await call(app, "POST", "/misspell")

    assert_problem(answer, 500, "internal_error")
    (error,) = [one.exc_info[1] for one in log_lines if one.exc_info]
    assert isinstance(error, UnknownProblemError)
    assert "there is no problem 'order_closd'" in str(error)
    assert "did you mean 'order_closed'?" in str(error)


WRONG = [
    pytest.param((CLOSED, CLOSED), id="twice"),
    pytest.param((ProblemType(404, "Gone", "It is gone.", code="not_found"),), id="ours"),
    pytest.param((ProblemType(200, "Fine", "It is fine.", code="fine"),), id="no error"),
    pytest.param((ProblemType(499, "Odd", "It is odd.", code="odd"),), id="no status"),
    pytest.param((ProblemType(409, "Odd", "It is odd.", code="Odd/../x"),), id="no code"),
    pytest.param((ProblemType(409, "", "It is odd.", code="odd"),), id="no title"),
    pytest.param((ProblemType(409, "Odd", " ", code="odd"),), id="no explanation"),
]


@pytest.mark.parametrize("types", WRONG)
def test_a_wrong_one_is_refused_when_the_application_is_built(
    types: tuple[ProblemType, ...], loggers: None, unregister: None
) -> None:
    with pytest.raises(ProblemTypeError):
        create_app(Settings(keyring=KEYRING), problems=types)
    assert known() == KINDS


def test_a_route_that_names_an_unknown_problem_is_refused(loggers: None, unregister: None) -> None:
    with pytest.raises(RouteError, match=r"POST /close: there is no problem 'order_closed'"):
        create_app(Settings(keyring=KEYRING), routes=ROUTES)
