"""The service itself: its entry point, its health, its description and its error codes."""

import asyncio

from sqlalchemy import exists, literal, select
from starlette.requests import Request
from starlette.responses import Response

from latchkey import service
from latchkey.models import User
from latchkey.service import shapes
from latchkey.service.problems import Problem
from latchkey.service.problems.registry import known

READY_DEADLINE_S = 2.0


async def read_home() -> shapes.Home:
    """Read the name of the service and links to its resources."""
    return shapes.Home(
        name="Latchkey",
        version=service.__version__,
        links={"openapi": "/openapi.json", "health": "/healthz", "readiness": "/readyz", "me": "/v1/me"},
    )


async def read_health() -> shapes.Health:
    """Report that the process answers, without checking anything else."""
    return shapes.Health(status="ok")


async def read_readiness(request: Request) -> shapes.Health:
    """Report whether the database answers within two seconds; 503 if it does not.

    The check reads a table, because a Galera node without quorum still answers statements that need no table.
    """
    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            await request.state.session.execute(select(literal(1), exists().where(User.id > 0)))
    except TimeoutError:
        raise Problem("unavailable", "The database does not answer in time.") from None
    return shapes.Health(status="ok")


async def read_openapi(request: Request) -> Response:
    """Read this description."""
    return Response(request.app.state.openapi, media_type="application/json")


async def read_problem(code: str) -> shapes.Explanation:
    """Read the meaning of an error code."""
    kind = known().get(code)
    if kind is None:
        raise Problem("not_found")
    return shapes.Explanation(code=code, status=kind.status, title=kind.title, explanation=kind.explanation)
