"""What a team puts around its application: middleware, mounts, and something that lives as long as it does."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from latchkey.service.operation import Operation, route
from tests.api import assert_problem, call

ORIGIN = "https://web.example.com"


class Opened(msgspec.Struct):
    """Whether the client of the application is open."""

    is_open: bool


async def read_client(request: Request) -> Opened:
    """Return whether the client is open."""
    return Opened(is_open=request.app.state.client)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (route("GET", "/client", read_client, public=True),)


async def test_middleware_of_a_team_is_outside_of_latchkeys(app: Starlette) -> None:
    app.state.client = True
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN])

    answer = await call(app, "GET", "/client", headers=[("origin", ORIGIN)])

    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)


async def test_files_can_be_mounted(app: Starlette, tmp_path: Path) -> None:
    (tmp_path / "logo.txt").write_text("logo")
    app.mount("/static", StaticFiles(directory=tmp_path))

    assert (await call(app, "GET", "/static/logo.txt")).body == b"logo"
    assert_problem(await call(app, "GET", "/static/other.txt"), 404, "not_found")


async def test_a_lifespan_can_be_wrapped(app: Starlette) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(one: Starlette) -> AsyncIterator[None]:
        async with inner(one):
            one.state.client = True
            yield
            one.state.client = False

    async with lifespan(app):
        assert (await call(app, "GET", "/client")).json == {"is_open": True}
    assert app.state.client is False
