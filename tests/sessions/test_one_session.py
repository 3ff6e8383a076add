"""R1 and R2: one request, one task, one session, which is the same object everywhere."""

import asyncio
import inspect
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.authentication import AuthenticationBackend
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.middleware.session import SessionMiddleware
from latchkey.models import User
from latchkey.service.app import create_app
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.session import RequestSession
from latchkey.service.endpoints.adapter import Adapter
from latchkey.service.exception_handlers import problem_of_exception
from latchkey.service.operation import RouteError, route
from latchkey.service.settings import Settings
from tests.requests import converse, request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import Seen, value_route


async def test_all_code_of_a_request_sees_the_same_session(db: SQLAlchemy, make_app: MakeApp) -> None:
    """R1: the session of the endpoint, the registry, the verbs and an inner `async with` are one object."""
    seen: list[AsyncSession] = []

    async def look(request: Request) -> None:
        seen.append(request.state.session)
        seen.append(db.scoped_session())
        async with db.scoped_session() as inner:
            seen.append(inner)
        async with User.resolve() as resolved:
            seen.append(resolved)
        async for injected in db.session():
            seen.append(injected)

    await request(make_app(value_route(look)), "GET", "/probe")

    assert len(seen) == 5
    assert all(session is seen[0] for session in seen)
    assert type(seen[0]) is RequestSession


async def test_the_authenticator_reads_on_the_requests_session(settings: Settings, db: SQLAlchemy) -> None:
    """R1: the backend uses `scope["state"]["session"]`, which is the registered session."""
    seen: list[Any] = []

    class Backend(AuthenticationBackend):
        async def authenticate(self, connection: Any) -> Any:
            seen.append(connection.scope["state"]["session"])
            seen.append(db.scoped_session())

    async def endpoint(request: Request) -> Any:
        seen.append(request.state.session)
        return Response()

    app = Starlette(
        routes=[Route("/", endpoint, middleware=[Middleware(AuthenticationMiddleware, backend=Backend())])],
        middleware=[
            Middleware(SessionMiddleware, scoped_session=db.scoped_session, problem=problem_of_exception)
        ],
    )
    await request(app, "GET", "/")

    assert len(seen) == 3
    assert seen[0] is seen[1] is seen[2]


async def test_two_requests_at_once_have_two_sessions(make_app: MakeApp) -> None:
    seen: list[AsyncSession] = []
    together = asyncio.Barrier(2)

    async def look(request: Request) -> None:
        seen.append(request.state.session)
        await together.wait()

    app = make_app(value_route(look))
    await asyncio.gather(request(app, "GET", "/probe"), request(app, "GET", "/probe"))

    assert seen[0] is not seen[1]


async def test_a_task_that_has_a_session_cannot_make_a_request(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that runs the application in the caller's task would use the caller's session."""

    async def nothing(request: Request) -> None: ...

    async with db.scoped_session():
        answer = await converse(make_app(value_route(nothing)), "GET", "/probe")

    assert answer.status == 500
    assert "run every request in its own task" in caplog.text


async def test_the_built_application_is_pure_asgi(settings: Settings) -> None:
    """R2: no middleware that moves the endpoint to another task, no endpoint that runs in a thread."""
    app = create_app(settings)
    try:
        found: list[Any] = [middleware.cls for middleware in app.user_middleware]
        for one in app.routes:
            assert isinstance(one, Route)
            assert isinstance(one.endpoint, Adapter), one.path
            layer: Any = one.app
            while hasattr(layer, "app"):
                found.append(type(layer))
                layer = layer.app
            found.append(type(layer))
        assert Adapter in found
        for cls in found:
            assert not hasattr(cls, "dispatch"), cls
            assert inspect.iscoroutinefunction(cls.__call__), cls
    finally:
        await SQLAlchemy().close()


def test_a_sync_endpoint_is_refused() -> None:
    """R2: it would run in a thread, which has no session."""

    def endpoint(request: Request) -> Seen:
        return Seen()

    with pytest.raises(RouteError, match="not `async def`"):
        route("GET", "/x", endpoint, public=True)  # type: ignore[arg-type]


async def test_an_endpoint_that_was_moved_to_another_task_is_named(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    """R2: the error of the adapter names the endpoint, and the reason."""

    class Mover:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.ensure_future(self.app(scope, receive, send))

    async def moved(request: Request) -> None: ...

    app = make_app(value_route(moved), extra=[Middleware(Mover)])
    answer = await request(app, "GET", "/probe")

    assert answer.status == 500
    assert "moved runs in another task than its session" in caplog.text


async def test_a_websocket_gets_no_session(db: SQLAlchemy, make_app: MakeApp) -> None:
    """It would hold one for as long as it is open."""
    seen: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    middleware = SessionMiddleware(inner, scoped_session=db.scoped_session, problem=lambda _error: None)
    await middleware({"type": "websocket"}, None, None)  # type: ignore[arg-type]

    assert seen == [{"type": "websocket"}]
    assert db.scoped_session.registry.registry == {}
