"""A last guard against servers that may take for a header or a request what is none."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.service.connections.refusals import Refusals

BOUNDED = "latchkey.bounded"
"""The name of the ASGI extension that `BoundedProtocol` gives its scopes."""

RISKS = frozenset({b"transfer-encoding", b"upgrade"})


class ServerGuardMiddleware:
    """Refuse, with the ASGI application `problem`, what the server may have read wrongly.

    uvicorn without `BoundedProtocol` adds the trailers of a chunked body to the headers, and reads the body of a
    request with `Upgrade` as the next request. The application puts the protocol in at its start, so a server that
    does not start it (`uvicorn --lifespan off`, or another application that it is mounted in) does not have it.

    Args:
        app: what is guarded.
        trusts_server: whether the server is not uvicorn; asked about a request with one of `RISKS` alone.
        problem: should close the connection.
        refusals: where a refusal is logged.
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
