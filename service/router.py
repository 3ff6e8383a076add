"""A router that finds the route of a request through an index."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.convertors import PathConvertor
from starlette.routing import Match, Route, Router
from starlette.types import Lifespan, Receive, Scope, Send

from latchkey.middleware.root_path import path_in_app

ANY_METHOD = "*"


class ConvertedRoute(Route):
    """Starlette's route, which does not match a path with a value that its convertor refuses.

    `label` is the name of the route in usage.

    The convertor of `{number:int}` raises ValueError for more digits than Python parses, and a team's own convertor for any
    value that it does not accept. In Starlette that error becomes a 500.
    """

    label: str

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether a request matches this route, and its path parameters."""
        try:
            return super().matches(scope)
        except (ValueError, ArithmeticError):
            return Match.NONE, {}


class IndexedRouter(Router):
    """Starlette's router, which first searches only the routes with the same method and number of slashes.

    It finds the same route: the first in the list that matches. If the index has no match, Starlette's own search decides.
    """

    def __init__(self, routes: Sequence[Route], *, lifespan: Lifespan[Any]) -> None:
        super().__init__(routes=routes, redirect_slashes=False, lifespan=lifespan)
        self.index = index(routes)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request to its route."""
        if scope["type"] == "http":
            slashes = path_in_app(scope).count("/")
            routes = self.index.get((scope["method"], slashes)) or self.index.get((ANY_METHOD, slashes), ())
            for route in routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found, route=route, router=self)
                    await route.app(scope, receive, send)
                    return
        await super().app(scope, receive, send)


def index(routes: Sequence[Route]) -> Mapping[tuple[str, int], Sequence[Route]]:
    """Return the routes by method and number of slashes; a parameter that may contain slashes belongs to every number.

    A route of every method is in the list of each method, and in that of `ANY_METHOD` for a method that no other route has.
    """
    slashes = {route.path.count("/") for route in routes}
    methods = {method for route in routes for method in route.methods or ()} | {ANY_METHOD}
    found: dict[tuple[str, int], list[Route]] = {}
    for route in routes:
        spans = any(isinstance(one, PathConvertor) for one in route.param_convertors.values())
        for method in methods if route.methods is None else route.methods:
            for number in slashes if spans else {route.path.count("/")}:
                found.setdefault((method, number), []).append(route)
    return found
