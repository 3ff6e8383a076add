"""A last question before the endpoint."""

from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class GateMiddleware:
    """Ask `refusal(scope)` before the endpoint runs, and answer with what it returns, unless that is None.

    For a check that itself leaves a trace, so that it must come after those that only look.
    """

    def __init__(self, app: ASGIApp, *, refusal: Callable[[Scope], Awaitable[ASGIApp | None]]) -> None:
        self.app = app
        self.refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in or not."""
        refused = await self.refusal(scope) if scope["type"] == "http" else None
        await (refused or self.app)(scope, receive, send)
