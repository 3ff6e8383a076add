"""The service of examples/gate on a port, with a protocol that takes WebSockets: `python -m tests.server.gated_service 9000`."""

import asyncio
import base64
import hashlib
import sys
from typing import Any

import uvicorn

from examples.gate.service import app

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Echo(asyncio.Protocol):
    """Accept a WebSocket, and send back the head of its request and everything that arrives, unframed."""

    def __init__(self, **_: Any) -> None:
        self.transport = asyncio.Transport()
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.head:
            self.transport.write(data)
            return
        self.head = data
        lines = dict(line.partition(b": ")[::2] for line in data.lower().split(b"\r\n")[1:])
        original = dict(line.partition(b": ")[::2] for line in data.split(b"\r\n")[1:])
        key = next(value for name, value in original.items() if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n"
            b"X-Seen-Owner: " + lines.get(b"x-latchkey-owner", b"") + b"\r\n\r\n"
        )


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), ws=Echo, loop="asyncio", log_level="warning")
