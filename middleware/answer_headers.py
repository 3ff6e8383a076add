"""Headers that are added to every response, whichever part of the application sends it."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnswerHeadersMiddleware:
    """Add the pairs of a lower-case name and a value that `headers(scope)` returns to the start of the response.

    They replace headers of the same names. The function is called when the response starts, so the scope contains
    everything that was set for the request. The middleware must be outside everything that answers, including the last
    resort. By then the request has released its connection, so the function may read from the database.
    """

    def __init__(
        self, app: ASGIApp, *, headers: Callable[[Scope], Awaitable[Sequence[tuple[bytes, bytes]]]]
    ) -> None:
        self.app = app
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start" and (added := await self.headers(scope)):
                names = {name for name, _ in added}
                kept = [one for one in message.get("headers", ()) if one[0].lower() not in names]
                message["headers"] = [*kept, *added]
            await send(message)

        await self.app(scope, receive, add)
