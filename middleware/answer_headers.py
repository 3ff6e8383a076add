"""Headers that every answer to a request gets, whoever answers it."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class AnswerHeadersMiddleware:
    """Add what `headers(scope)` gives to the start of the answer: pairs of a lower-case name and a value.

    It is asked when the answer starts, so it can tell what was found out about the request on the way. Outside
    of everything that answers, the last resort included; else the errors that are answered further out lack
    the headers. What the request held is given back by then, so it may read something up.
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
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.app(scope, receive, add)
