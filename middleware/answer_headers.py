"""Headers that every answer to a request gets, whoever answers it."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnswerHeadersMiddleware:
    """Add what `headers(scope)` returns to the start of the answer: pairs of a lower-case name and a value.

    They replace headers of the same names. The function is called when the answer starts, so it knows everything that
    was found out about the request. The middleware belongs outside of everything that answers, the last resort
    included. The request has released its connection by then, so the function may read from the database.
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
