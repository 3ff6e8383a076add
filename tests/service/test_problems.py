"""Every error that a client can receive has the same form and its own paragraph."""

import contextlib
import logging
import re
from collections.abc import Sequence
from typing import Any

import asyncmy
import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request

from latchkey.middleware.session_errors import CommitUnknownError
from latchkey.service.exception_handlers import problem_of_exception
from latchkey.service.operation import Operation, route
from latchkey.service.problems import FieldError, Problem, or_not_found
from latchkey.service.problems.kinds import KINDS
from latchkey.service.settings import Settings
from tests.api import assert_problem, call


class Nothing(msgspec.Struct):
    """An empty answer."""


async def raise_of_starlette(status: int) -> Nothing:
    """Raise an exception of Starlette."""
    raise HTTPException(status, "private")


async def wait_for_a_connection(request: Request) -> Nothing:
    """Read while no connection is free."""
    await request.state.session.execute(text("SELECT 1"))
    return Nothing()


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("GET", "/raise/{status}", raise_of_starlette, public=True),
        route("POST", "/wait", wait_for_a_connection, public=True),
    )


@pytest.mark.parametrize("status", [400, 403, 418, 503])
async def test_an_exception_of_starlettes_is_an_error_of_ours_and_not_a_404(
    app: Starlette, log_lines: list[logging.LogRecord], status: int
) -> None:
    """Otherwise an endpoint that means 403 would return a 404."""
    assert_problem(await call(app, "GET", f"/raise/{status}"), 500, "internal_error")
    assert [line.exc_info[0] for line in log_lines if line.exc_info] == [HTTPException]


async def test_its_404_is_ours(app: Starlette) -> None:
    assert_problem(await call(app, "GET", "/raise/404"), 404, "not_found")


async def test_the_operator_is_told_why_a_client_is_told_503(
    app: Starlette, settings: Settings, log_lines: list[logging.LogRecord]
) -> None:
    async with contextlib.AsyncExitStack() as held:
        for _ in range(settings.pool_size):
            await held.enter_async_context(app.state.db.engine.connect())
        answer = await call(app, "POST", "/wait")

    assert_problem(answer, 503, "unavailable")
    (warning,) = [line.getMessage() for line in log_lines if line.levelno >= logging.WARNING]
    assert warning.startswith("unavailable: none of 2 connections was returned")
    assert "SELECT" not in warning


@pytest.mark.parametrize("code", KINDS)
async def test_every_code_is_explained_where_its_type_points(app: Starlette, code: str) -> None:
    kind = KINDS[code]

    answer = await call(app, "GET", f"/problems/{code}")

    assert answer.status == 200
    assert answer.json == {
        "code": code,
        "status": kind.status,
        "title": kind.title,
        "explanation": kind.explanation,
    }


@pytest.mark.parametrize("code", KINDS)
def test_every_explanation_is_made_of_full_sentences(code: str) -> None:
    kind = KINDS[code]

    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert 400 <= kind.status < 600
    assert re.fullmatch(r"[A-Z].*[^.]", kind.title)
    assert re.fullmatch(r"[A-Z`].*\.", kind.explanation)
    assert len(kind.explanation.split()) >= 8
    assert kind.title not in kind.explanation


@pytest.mark.parametrize("code", KINDS)
def test_a_problem_renders_all_its_members(code: str) -> None:
    response = Problem(code).response("visit-7")
    members = response.body.decode()

    assert response.status_code == KINDS[code].status
    assert '"request_id":"visit-7"' in members
    assert f'"detail":"{KINDS[code].title}."' in members
    assert "errors" not in members
    assert ("www-authenticate" in response.headers) is (KINDS[code].status == 401 or code == "scope_missing")
    waits = KINDS[code].status in {429, 503} or code == "idempotency_in_progress"
    assert ("retry-after" in response.headers) is waits


@pytest.mark.parametrize(("detail", "told"), [(None, "Not found."), ("No row.", "No row.")])
def test_none_is_the_problem_not_found_and_every_other_value_stays(detail: str | None, told: str) -> None:
    with pytest.raises(Problem) as raised:
        or_not_found(None, detail)

    assert (raised.value.code, raised.value.detail) == ("not_found", told)
    assert [or_not_found(value, detail) for value in (0, "", False)] == [0, "", False]


def test_a_problem_says_what_it_was_told() -> None:
    problem = Problem("invalid_body", "So.", errors=[FieldError("/a", "no")], headers={"x-more": "1"})
    response = problem.response(None)

    assert b'"errors":[{"pointer":"/a","detail":"no"}]' in response.body
    assert b'"detail":"So."' in response.body
    assert b'"request_id":null' in response.body
    assert response.headers["x-more"] == "1"


def test_a_problem_that_knows_when_to_try_again_says_so() -> None:
    assert (
        Problem("too_many_failures", headers={"retry-after": "7"}).response(None).headers["retry-after"]
        == "7"
    )
    assert Problem("unavailable").response(None).headers["retry-after"] == "1"


def test_a_commit_of_unknown_outcome_asks_nobody_to_try_again() -> None:
    assert "retry-after" not in Problem("commit_unknown").response(None).headers


def database_error(
    number: int, kind: type[DBAPIError] = OperationalError, state: str | None = None
) -> DBAPIError:
    error = asyncmy.errors.OperationalError(number, "private")
    error.sqlstate = state
    return kind("UPDATE secret_table", {"x": 1}, error)


UNAVAILABLE = "unavailable"
MAPPED = [
    pytest.param(Problem("conflict"), "conflict", id="a problem"),
    pytest.param(database_error(1062, IntegrityError), "conflict", id="a unique constraint"),
    pytest.param(database_error(1452, IntegrityError), "conflict", id="a foreign key"),
    pytest.param(PoolTimeoutError(), UNAVAILABLE, id="no connection free"),
    pytest.param(database_error(1213), UNAVAILABLE, id="a deadlock to the end"),
    pytest.param(database_error(1205), UNAVAILABLE, id="a lock not let go"),
    pytest.param(database_error(1020), UNAVAILABLE, id="a snapshot conflict"),
    pytest.param(
        InterfaceError("ROLLBACK", {}, asyncmy.errors.InterfaceError(0, "Cancelled during execution")),
        UNAVAILABLE,
        id="a rollback after a cancellation",
    ),
    pytest.param(database_error(2003), UNAVAILABLE, id="no server"),
    pytest.param(database_error(2006), UNAVAILABLE, id="a server gone"),
    pytest.param(database_error(2013), UNAVAILABLE, id="a server lost"),
    pytest.param(database_error(1040), UNAVAILABLE, id="too many connections"),
    pytest.param(database_error(1047), UNAVAILABLE, id="no quorum"),
    pytest.param(database_error(1053), UNAVAILABLE, id="a server shutting down"),
    pytest.param(database_error(1290), UNAVAILABLE, id="a replica"),
    pytest.param(database_error(1792), UNAVAILABLE, id="transactions that only read"),
    pytest.param(database_error(3024), UNAVAILABLE, id="a time limit of MySQL"),
    pytest.param(database_error(3032), UNAVAILABLE, id="a server in offline mode"),
    pytest.param(database_error(3100), UNAVAILABLE, id="a member of no group"),
    pytest.param(database_error(3101), UNAVAILABLE, id="a conflict in a group to the end"),
    pytest.param(database_error(1180), UNAVAILABLE, id="an error while committing"),
    pytest.param(database_error(1114), UNAVAILABLE, id="a full disk"),
    pytest.param(database_error(3118), UNAVAILABLE, id="a locked account"),
    pytest.param(database_error(1862), UNAVAILABLE, id="an expired password"),
    pytest.param(database_error(9999, state="08S01"), UNAVAILABLE, id="a connection exception of any number"),
    pytest.param(
        database_error(9999, state="25006"), UNAVAILABLE, id="a read-only transaction of any number"
    ),
    pytest.param(
        database_error(9999, state="70100"), UNAVAILABLE, id="a statement broken off, of any number"
    ),
    pytest.param(database_error(9999, state="HY000"), None, id="a general error of another number"),
    pytest.param(StaleDataError(), "changed_meanwhile", id="a row that changed meanwhile"),
    pytest.param(CommitUnknownError(), "commit_unknown", id="a connection lost at COMMIT"),
    pytest.param(ExceptionGroup("", [ValueError(), database_error(2006)]), UNAVAILABLE, id="in a task group"),
    pytest.param(database_error(1146, ProgrammingError), None, id="no such table"),
    pytest.param(database_error(1064), None, id="no such statement"),
    pytest.param(ConnectionRefusedError(), None, id="another service out of reach"),
    pytest.param(FileNotFoundError(), None, id="no such file"),
    pytest.param(TimeoutError(), None, id="a deadline of the endpoint's own"),
    pytest.param(ZeroDivisionError(), None, id="anything else"),
    pytest.param(ExceptionGroup("", [ValueError()]), None, id="anything else in a task group"),
]


@pytest.mark.parametrize("error, code", MAPPED)
def test_only_errors_of_the_database_are_problems(error: Any, code: str | None) -> None:
    problem = problem_of_exception(error)

    assert (problem.code if problem else None) == code
    assert problem is None or "private" not in problem.response(None).body.decode()


def test_a_connection_found_dead_is_unavailable_whatever_its_number() -> None:
    error = OperationalError("SELECT 1", {}, Exception("odd"), connection_invalidated=True)

    assert problem_of_exception(error).code == UNAVAILABLE
