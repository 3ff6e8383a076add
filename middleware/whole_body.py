"""Read the whole body before a request is processed."""

from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.request_state import request_state


class WholeBodyMiddleware:
    """Read the whole body, then run the application, which receives it in one part.

    Everything inside this middleware runs after the body is complete, however long the client took to send it.
    `scope["state"]["has_body"]` is whether the body has any bytes, whatever its framing.
    The middleware belongs inside the limit and the deadline of bodies.

    Args:
        is_refused: returns whether the application would refuse the request for its headers alone; then the body is not
            read.
    """

    def __init__(self, app: ASGIApp, *, is_refused: Callable[[Scope], bool]) -> None:
        self.app = app
        self.is_refused = is_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read one body."""
        if scope["type"] != "http" or not is_framed(scope) or self.is_refused(scope):
            await self.app(scope, receive, send)
            return
        body = await read_body(receive)
        request_state(scope)["has_body"] = bool(body)
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, replay, send)


async def read_body(receive: Receive) -> bytes:
    """Return the whole body."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def is_framed(scope: Scope) -> bool:
    """Return whether a request may have a body: HTTP/1 announces one by its headers, other versions need not."""
    return scope.get("http_version") not in {"1.0", "1.1"} or any(
        name in {b"transfer-encoding", b"content-length"} for name, _ in scope["headers"]
    )
