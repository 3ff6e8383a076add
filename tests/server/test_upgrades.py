"""A request that asks for another protocol leaves nothing that could be parsed as the next request."""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from latchkey.service.connections.bounds import Bounds
from latchkey.service.connections.protocol import BoundedProtocol
from latchkey.service.connections.room import Room
from tests.server.raw_requests import ServerWithKeys, database_of, exchange, head, serve_with_keys

UPGRADE = ["connection: keep-alive, upgrade", "upgrade: h2c"]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerWithKeys]:
    folder = tmp_path_factory.mktemp("served")
    with serve_with_keys(folder, database_of("sqlite", request, folder)) as found:
        yield found


def begin(method: str, path: str, *headers: str) -> bytes:
    """Return the head of a request that others may follow."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *headers, "", ""]).encode()


def has_reached(served: ServerWithKeys, path: str) -> bool:
    """Return whether the application received a request for a path."""
    time.sleep(0.2)
    return path in served.served.err.read_text()


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("framing", [f"content-length: {len(SMUGGLED)}", "transfer-encoding: chunked"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("ahead", [False, True], ids=["first", "second"])
def test_a_body(served: ServerWithKeys, protocol: str, framing: str, parts: int, ahead: bool) -> None:
    """Refused, whether the body comes with the headers or later."""
    request = begin("POST", "/v1/users", "connection: upgrade", f"upgrade: {protocol}", framing)
    request = begin("GET", "/healthz") * ahead + request
    sent = [request + SMUGGLED] if parts == 1 else [request, SMUGGLED]

    *before, reply = exchange(served.port, *sent, pause_s=0.1)

    assert [one.status for one in before] == [200] * ahead
    assert (reply.status, reply.code) == (501, "upgrade_with_body")
    assert reply.headers["connection"] == "close"
    assert not has_reached(served, "/smuggled")


@pytest.mark.parametrize("length", [[], ["content-length: 0"]], ids=["no length", "a length of 0"])
def test_no_body(served: ServerWithKeys, length: list[str]) -> None:
    """It is answered as the last request of its connection: data that follows in the same packet is dropped."""
    (reply,) = exchange(served.port, begin("GET", "/healthz", *UPGRADE, *length) + SMUGGLED)

    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert not has_reached(served, "/smuggled")


def test_the_rest_of_what_was_lost(served: ServerWithKeys) -> None:
    """The second packet would be parsed as a request although it belongs to a dropped body."""
    lost = begin("POST", "/v1/users", f"content-length: {len(SMUGGLED)}")
    for _ in range(20):
        with contextlib.suppress(ConnectionError):  # the connection was closed after the first answer
            exchange(served.port, begin("GET", "/healthz", *UPGRADE) + lost, SMUGGLED)

    assert not has_reached(served, "/smuggled")


def test_a_next_request_after_headers_that_ask_for_nothing(served: ServerWithKeys) -> None:
    """`Upgrade` requires `Connection: upgrade`: with only one of the two, a body is an ordinary body."""
    requests = [
        begin("POST", "/v1/users", header, "content-length: 5") + b"12345" for header in UPGRADE[1:]
    ] + [begin("POST", "/v1/users", UPGRADE[0], "content-length: 5") + b"12345"]

    assert [one.status for one in exchange(served.port, *requests, head("GET", "/healthz"))] == [
        401,
        401,
        200,
    ]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"CONNECT example.com:443", id="CONNECT"),
        pytest.param(b"GET http://[", id="an address without an end"),
        pytest.param(b"GET http:///", id="no address"),
        pytest.param(b"GET /\xc3\xbc", id="bytes that are not ASCII"),
    ],
)
@pytest.mark.parametrize("ahead", [False, True], ids=["first", "second"])
def test_a_target_that_is_none(served: ServerWithKeys, line: bytes, ahead: bool) -> None:
    """It is refused like other invalid requests, without an error in the log."""
    request = line + b" HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED

    *before, reply = exchange(served.port, begin("GET", "/healthz") * ahead + request)

    assert [one.status for one in before] == [200] * ahead
    assert (reply.status, reply.code) == (400, "malformed_request")
    assert not re.search("Traceback|Fatal error|/smuggled", served.served.err.read_text())


class Taker(asyncio.Protocol):
    """The protocol of a WebSocket library, which takes the connection over."""

    def __init__(self, **_: Any) -> None:
        self.transport = asyncio.Transport()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + data)
        self.transport.close()


@pytest.mark.parametrize("body", [False, True], ids=["no body", "a body"])
async def test_a_websocket_where_a_library_is_installed(body: bool) -> None:
    """It is handed over with its headers, as in uvicorn; with a body it is refused."""
    config = uvicorn.Config(answer_nothing, log_config=None, ws=Taker)
    config.load()
    make = partial(BoundedProtocol, config, ServerState(), {}, bounds=Bounds(), room=Room())
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(
            begin("GET", "/a", "connection: upgrade", "upgrade: websocket", *["content-length: 3"] * body)
        )
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 501 " if body else b"HTTP/1.1 101 ")
    assert (b"GET /a HTTP/1.1\r\nhost: x\r\n" in answer) is not body


async def answer_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("neither request is the application's")
