"""A minimal server: one ASGI application, one request, and the messages that were sent."""

from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OTHER_SCOPES = [{"type": "websocket"}, {"type": "lifespan"}]


def http(**scope: Any) -> dict[str, Any]:
    """Return the scope of a request."""
    return {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": [], **scope}


async def run(
    app: ASGIApp, scope: Scope, parts: Sequence[bytes | None] = (b"",)
) -> tuple[list[Message], list[bytes | None]]:
    """Run the application once; `parts` are the parts of the body, None for a client that disconnects there.

    Returns the sent messages, and the parts that were not received.
    """
    left, sent = list(parts), []

    async def receive() -> Message:
        part = left.pop(0) if left else None
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent, left


def answering(status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> ASGIApp:
    """Send an answer without reading."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b""})

    return app


class Reading:
    """An application that reads the whole body and stores it; `started` first sends the start of an answer."""

    def __init__(self, *, started: bool = False) -> None:
        self.started = started
        self.messages: list[Message] = []

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            message = await receive()
            self.messages.append(message)
            if not message.get("more_body"):
                break
        if not self.started:
            await answering()(scope, receive, send)


async def untouched(scope: Scope, receive: Receive, send: Send) -> None:
    """Handle a scope that is not HTTP, with the original `receive` and `send`."""
    scope["seen"] = receive, send


async def passes_untouched(app: ASGIApp, scope: Scope) -> bool:
    """Return whether `app`, around `untouched`, passes its arguments on unchanged."""

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    before = dict(scope)
    await app(scope, receive, send)
    return scope == {**before, "seen": (receive, send)}


def status_of(sent: Sequence[Message]) -> int:
    """Return the only status that was sent."""
    (start,) = (message for message in sent if message["type"] == "http.response.start")
    return start["status"]
