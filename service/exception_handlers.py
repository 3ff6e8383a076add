"""The responses to exceptions: the problem for a database error, and Starlette's exception handlers."""

import logging

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from latchkey.middleware.request_state import request_state
from latchkey.middleware.root_path import path_in_app
from latchkey.middleware.session_errors import CommitUnknownError, TransactionEndedError
from latchkey.models.errors import InvalidValueError
from latchkey.service.database.conflicts import (
    is_conflict,
    is_locked,
    is_unreachable,
    violates_constraint,
)
from latchkey.service.invalid_values import invalid_value
from latchkey.service.problems import Problem
from latchkey.service.redis.client import UnreachableError

log = logging.getLogger("latchkey.problems")


def problem_of_exception(error: BaseException) -> Problem | None:  # noqa: C901, PLR0911 - a table, read line by line
    """Return the problem for an exception; None if neither the database nor Redis caused it."""
    match error:
        case Problem():
            return error
        case BaseExceptionGroup():
            return next((found for one in error.exceptions if (found := problem_of_exception(one))), None)
        case CommitUnknownError():
            return Problem("commit_unknown")
        case DBAPIError() if violates_constraint(error):
            return Problem("conflict")
        case DBAPIError() | InvalidValueError() if (found := invalid_value(error)) is not None:
            return found
        case StaleDataError():
            return Problem("changed_meanwhile")
        case PoolTimeoutError():
            return Problem("unavailable", "Every connection to the database is in use.")
        case DBAPIError() | TransactionEndedError() if is_conflict(error):
            return Problem("unavailable", "The change conflicted with other changes.")
        case DBAPIError() if is_locked(error):
            return Problem("unavailable", "Another change holds a lock that the call needs.")
        case DBAPIError() if is_unreachable(error):
            return Problem("unavailable", "The database cannot be reached.")
        case UnreachableError():
            return Problem("unavailable", "Redis cannot be reached.")
        case _:
            return None


def answer_failure(error: Exception) -> Problem | None:
    """Return the problem for an exception of the database, and log the details that the client does not get."""
    problem = problem_of_exception(error)
    if problem is not None and problem.kind.status >= 500:  # noqa: PLR2004 - RFC 9110, section 15.6
        # Only the driver's message: an error of SQLAlchemy would show the statement and its values.
        log.warning("%s: %s", problem.code, getattr(error, "orig", error))
    return problem


async def answer_problem(request: Request, error: Exception) -> Response:
    """Return the response for a Problem that was raised; a Starlette exception handler."""
    assert isinstance(error, Problem)  # noqa: S101 - registered for Problem
    return error.response(request_state(request.scope).get("request_id"))


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Return the response for a 404 or 405 of the router; any other HTTPException is raised again.

    Endpoints raise `Problem`, so another status is their fault.
    """
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for HTTPException
    match error.status_code:
        case 404:
            problem = Problem("not_found")
        case 405:
            allowed = ", ".join(sorted(allowed_methods(request)))
            problem = Problem(
                "method_not_allowed", f"This path supports {allowed}.", headers={"allow": allowed}
            )
        case _:
            raise error
    return problem.response(request_state(request.scope).get("request_id"))


def allowed_methods(request: Request) -> set[str]:
    """Return the methods of all routes at this path; Starlette's own list stops at the first route."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.path_regex.match(path_in_app(request.scope)):
            found |= route.methods or set()
    return found
