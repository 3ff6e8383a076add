"""A receiver of webhooks: a small HTTP server in the loop of a test, whose answers the test decides."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec
from standardwebhooks import Webhook


class Received(msgspec.Struct, frozen=True):
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        """The body, as JSON."""
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found

    def verified(self, secret: str) -> dict[str, Any]:
        """Return the body, if the signature is right by the library of Standard Webhooks."""
        found: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return found


class Receiver:
    """The requests that have arrived, and how they are answered."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answer: Callable[[Received], int | bytes | None] = lambda _: 204
        """Returns the status, the whole response, or None to close the connection without one."""
        self.delay_s = 0.0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?of=latchkey"

    @property
    def types(self) -> list[str]:
        return [one.event["type"] for one in self.requests]

    async def wait_for(self, count: int, *, within_s: float = 10.0) -> None:
        """Wait until so many requests have arrived."""
        async with asyncio.timeout(within_s):
            while len(self.requests) < count:
                await asyncio.sleep(0.01)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._answer(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        pairs = (line.partition(": ") for line in head[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        received = Received(method, target, headers, body)
        self.requests.append(received)
        await asyncio.sleep(self.delay_s)
        answer = self.answer(received)
        if isinstance(answer, int):
            reason = HTTPStatus(answer).phrase
            answer = f"HTTP/1.1 {answer} {reason}\r\ncontent-length: 0\r\n\r\n".encode()
        if answer is not None:
            writer.write(answer)
            await writer.drain()


@asynccontextmanager
async def receiving(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of 127.0.0.1."""
    receiver = Receiver()
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        task.add_done_callback(running.discard)
        with contextlib.suppress(asyncio.CancelledError):  # the callback of the streams reports it
            await receiver.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
