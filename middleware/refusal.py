"""A final check before the endpoint."""

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class RefusalMiddleware:
    """Call `refusal(scope)` before the endpoint runs; if it returns an application, that answers the request instead.

    For a check with a side effect, which must run after the checks without one.
    """

    def __init__(self, app: ASGIApp, *, refusal: Callable[[Scope], Awaitable[ASGIApp | None]]) -> None:
        self.app = app
        self.refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        refused = await self.refusal(scope) if scope["type"] == "http" else None
        await (refused or self.app)(scope, receive, send)
