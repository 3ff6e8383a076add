"""The router's index finds the route that a scan would find, and refuses the requests that a scan would refuse."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router

from latchkey.service.app import create_app
from latchkey.service.router import IndexedRouter, index
from latchkey.service.routes import ROUTES
from latchkey.service.settings import Settings
from tests.requests import request


@contextlib.asynccontextmanager
async def no_lifespan(_app: Starlette) -> AsyncIterator[None]:
    yield


def answer(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return Response(headers={"route": name})

    endpoint.__name__ = name
    return endpoint


PATHS = (
    "/files/{name}",
    "/files/{path:path}",
    "/files/new/{name}",
    "/{any:path}",
    "/files/{number:int}/text",
    "/x",
)
ASKED = (
    "/files/a",
    "/files/a/b",
    "/files/new/a",
    "/files/7/text",
    "/x",
    "/x/",
    "/",
    "//",
    "/files/",
    "/a/b/c/d/e",
)


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("order", list(itertools.permutations(range(len(PATHS)), 3)), ids=str)
async def test_it_answers_as_a_scan_would(path: str, order: tuple[int, ...]) -> None:
    """Whatever the order of overlapping routes, the first that matches answers."""
    routes = [
        Route(PATHS[place], answer(f"{method} {PATHS[place]}"), methods=[method])
        for place in order
        for method in ("GET", "POST")
    ]
    scan = Router(routes, redirect_slashes=False)
    indexed = IndexedRouter(routes, lifespan=no_lifespan)

    for method in ("GET", "HEAD", "POST", "PUT"):
        expected = await request(scan, method, path)
        found = await request(indexed, method, path)
        assert (found.status, found.headers.get("route")) == (expected.status, expected.headers.get("route"))


async def test_every_route_of_the_service_is_found_by_its_index(settings: Settings) -> None:
    """None of them needs the scan."""
    app = create_app(settings)
    try:
        for operation in ROUTES:
            path = (
                operation.path.replace("{id}", "7")
                .replace("{access_key}", "lka_x")
                .replace("{code}", "conflict")
            )
            scope = {"type": "http", "method": operation.method, "path": path}
            near = index(cast("Any", app.router.routes))[operation.method, path.count("/")]

            matching = [route for route in near if route.matches(scope)[0] is Match.FULL]

            assert [route.name for route in matching] == [operation.name]
    finally:
        await app.state.db.close()
