"""A last guard against servers that may mistake other bytes for a header or a request."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.service.connections.refusals import Refusals

BOUNDED = "latchkey.bounded"
"""The name of the ASGI extension that `BoundedProtocol` gives its scopes."""

RISKS = frozenset({b"transfer-encoding", b"upgrade"})


class ServerGuardMiddleware:
    """Refuse requests that the server may have parsed wrongly, with the ASGI application `problem`.

    uvicorn without `BoundedProtocol` adds the trailers of a chunked body to the headers, and parses the body of a request
    with `Upgrade` as the next request. The application installs the protocol at its start, so it is missing if the server
    does not run the start (`uvicorn --lifespan off`, or another application that mounts this one).

    Args:
        app: the guarded application.
        trusts_server: returns whether the server is not uvicorn; called only for a request with one of `RISKS`.
        problem: should close the connection.
        refusals: logs refusals.
    """

    def __init__(
        self, app: ASGIApp, *, trusts_server: Callable[[], bool], problem: ASGIApp, refusals: Refusals
    ) -> None:
        self.app = app
        self.trusts_server = trusts_server
        self.problem = problem
        self.refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one request."""
        if (
            scope["type"] != "http"
            or BOUNDED in scope.get("extensions", ())
            or self.trusts_server()
            or RISKS.isdisjoint(name for name, _ in scope["headers"])
        ):
            await self.app(scope, receive, send)
        else:
            self.refusals.note(
                "the server has not started the application by its lifespan, so chunked bodies and Upgrade are "
                "refused: serve with --lifespan on, or run the lifespan in that of the application around it",
                scope.get("client"),
            )
            await self.problem(scope, receive, send)
