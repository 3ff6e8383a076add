"""The service itself: its entry point, its health, its description and its error codes."""

import asyncio

from sqlalchemy import exists, literal, select
from starlette.requests import Request
from starlette.responses import Response

from latchkey import service
from latchkey.models import User
from latchkey.service import shapes
from latchkey.service.pages.content import fill
from latchkey.service.parts import parts_of
from latchkey.service.problems import Problem
from latchkey.service.problems.registry import known

READY_DEADLINE_S = 2.0


class JsonText(Response):
    """A response whose content is JSON already."""

    media_type = "application/json"


async def read_home(request: Request) -> shapes.Home:
    """Read the name of the service and links to its resources."""
    links = {"openapi": "/openapi.json", "health": "/healthz", "readiness": "/readyz", "me": "/v1/me"}
    if parts_of(request.app).has_reference:
        links["docs"] = "/docs"
    return shapes.Home(name="Latchkey", version=service.__version__, links=links)


async def read_health() -> shapes.Health:
    """Report that the process responds, without checking anything else."""
    return shapes.Health(status="ok")


async def read_liveness() -> shapes.Health:
    """Report that the process responds, under the name that Kubernetes uses."""
    return shapes.Health(status="ok")


async def read_readiness(request: Request) -> shapes.Health:
    """Report whether the database responds within two seconds; 503 if it does not.

    The status `degraded` means that the replica does not respond or is behind, and that its reads go to the primary.

    The check reads a table, because a Galera node without quorum still answers statements that need no table.
    """
    db = parts_of(request.app).db
    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            await request.state.session.execute(
                select(literal(1), exists().where(User.id > 0)),
                bind_arguments={"bind": db.reader.sync_engine},
            )
    except TimeoutError:
        raise Problem("unavailable", "The database does not answer in time.") from None
    replica = db.replica_state
    return shapes.Health(status="ok" if replica is None or replica.is_usable else "degraded")


async def read_openapi(request: Request) -> JsonText:
    """Read this description.

    The response has an `ETag`, so that a request with `If-None-Match` is answered with 304 if the description has not
    changed. It is compressed for a client that accepts gzip.
    """
    return fill(JsonText, parts_of(request.app).openapi, request)


async def read_problem(code: str) -> shapes.Explanation:
    """Read the meaning of an error code."""
    kind = known().get(code)
    if kind is None:
        raise Problem("not_found")
    return shapes.Explanation(code=code, status=kind.status, title=kind.title, explanation=kind.explanation)
