"""Endpoints for the rules of sessions, mounted with the same middleware as a team's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from sqlalchemy import select
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from latchkey.models import User
from latchkey.service import shapes
from latchkey.service.database import SQLAlchemy
from latchkey.service.operation import Operation, route


class Seen(msgspec.Struct):
    """The answer of an ad-hoc endpoint."""

    seen: Any = None


class NewRow(shapes.Input, frozen=True, kw_only=True):
    """A user to write."""

    email: str


def value_route(
    function: Callable[..., Awaitable[Any]], method: str = "GET", path: str = "/probe", **options: Any
) -> Operation:
    """Mount one endpoint that returns any value, which is answered as `{"seen": …}`."""

    async def endpoint(request: Request) -> Any:
        found = await function(request)
        return found if isinstance(found, Response) else Seen(found)

    endpoint.__name__ = function.__name__
    options.setdefault("public", True)
    return route(method, path, endpoint, answers=options.pop("answers", Seen), **options)


def response_route(
    function: Callable[..., Awaitable[Response]], method: str = "GET", path: str = "/probe", **options: Any
) -> Operation:
    """Mount one endpoint that returns its own Response: streamed bodies, background work."""
    return value_route(function, method, path, answers=Response, **options)


async def read(id: shapes.PathId) -> Seen:
    """Read, as most requests do."""
    user = await User.get(int(id))
    return Seen(user.name if user else None)


async def write(body: NewRow) -> User:
    """Write one row."""
    return await User.create(email=body.email, name="written")


async def fail(request: Request) -> Any:
    """Write one row, then another that the database refuses."""
    await User.create(email="half@example.com", name="half")
    await User.create(email="FIRST@example.com", name="taken")


async def children(request: Request) -> Any:
    """Read in five child tasks, each with its own session."""

    async def child() -> int:
        found = await SQLAlchemy().scoped_session().execute(select(User.id).order_by(User.id).limit(1))
        return found.scalar_one()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child()) for _ in range(5)]
    return [task.result() for task in tasks]


async def stream(request: Request) -> Response:
    """Read while the body is being sent."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            user = await User.get(1)
            yield user.name.encode() if user else b"?"

    return StreamingResponse(parts())


async def background(request: Request) -> Response:
    """Write after the answer."""
    email = request.headers["x-email"]

    async def work() -> None:
        await User.create(email=email, name="later", auto_commit=True)

    return JSONResponse({}, background=BackgroundTask(work))


ROUTES = (
    route("GET", "/read/{id}", read, public=True),
    route("POST", "/write", write, public=True, status=201, answers=shapes.User),
    value_route(fail, "POST", "/fail"),
    value_route(children, path="/children"),
    response_route(stream, path="/stream"),
    response_route(background, "POST", "/background"),
)
