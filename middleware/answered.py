"""Call a function when a response starts."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnsweredMiddleware:
    """Call `note(scope, status)` for each response, just before its start is sent.

    The scope contains everything that was set for the request. The function must not wait. A request that gets no
    response, because its client has left, is not noted.
    """

    def __init__(self, app: ASGIApp, *, note: Callable[[Scope, int], None]) -> None:
        self.app = app
        self.note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.note(scope, message["status"])
            await send(message)

        await self.app(scope, receive, note)
