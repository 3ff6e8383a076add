"""An application with additional routes on the open database."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from latchkey.middleware.body_limit import BodyLimitMiddleware
from latchkey.middleware.request_id import RequestIDMiddleware
from latchkey.middleware.session import SessionMiddleware
from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.exception_handlers import answer_http_exception, answer_problem, problem_of_exception
from latchkey.service.middleware_stack import make_route
from latchkey.service.operation import Operation
from latchkey.service.problems import Problem
from tests.sessions import endpoints
from tests.sessions.storm import FINDINGS

FIRST = "first@example.com"


@pytest.fixture
async def first(db: SQLAlchemy) -> int:
    """Return the id of a user that every test may read; a second one has the next id."""
    async with db.scoped_session() as session:
        await User.create(id=1, email=FIRST, name="first")
        await User.create(id=2, email="second@example.com", name="second")
        await session.commit()
    return 1


MakeApp = Callable[..., Starlette]


@pytest.fixture
def make_app(db: SQLAlchemy) -> MakeApp:
    """Return a function that builds an application around the open database from operations, without authentication."""

    def make(*operations: Operation, extra: list[Any] | None = None, **options: Any) -> Starlette:
        return Starlette(
            routes=[make_route(operation, ()) for operation in operations],
            exception_handlers={Problem: answer_problem, HTTPException: answer_http_exception},
            middleware=[
                Middleware(RequestIDMiddleware, last_resort=Problem("internal_error")),
                Middleware(BodyLimitMiddleware, limit_bytes=2**20, problem=Problem("body_too_large")),
                Middleware(SessionMiddleware, scoped_session=db.scoped_session, problem=problem_of_exception),
                *(extra or []),
            ],
            **options,
        )

    return make


@pytest.fixture
def app(make_app: MakeApp, first: int) -> Starlette:
    return make_app(*endpoints.ROUTES)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the number of cancelled requests, which a passed test does not show."""
    for backend, findings in sorted(config.stash.get(FINDINGS, {}).items()):
        terminalreporter.write_line(
            f"storm on {backend}: {findings.cancellations} cancellations, {len(findings.leaks)} leaks, "
            f"{findings.acknowledged} acknowledged, {len(findings.missing)} of them missing"
        )
