"""Whatever a driver raises while it connects is trouble of the server or of the way to it, whatever its class."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from starlette.applications import Starlette

from tests.api import HeldKey, assert_problem, call
from tests.conftest import on_mariadb


def packet(content: bytes, number: int = 0) -> bytes:
    """Return a packet of the protocol: its length in three bytes, its number, its content."""
    return struct.pack("<I", len(content))[:3] + bytes([number]) + content


def refusal(number: int, words: str) -> bytes:
    return packet(b"\xff" + struct.pack("<H", number) + b"#HY000" + words.encode())


def greeting(plugin: bytes = b"mysql_native_password") -> bytes:
    capabilities = struct.pack("<H", 0xF7FF)
    return packet(
        b"\x0a8.4.0\0"
        + struct.pack("<I", 7)
        + b"12345678\0"
        + capabilities
        + b"\x2d"
        + struct.pack("<H", 2)
        + struct.pack("<H", 0x00FF)
        + bytes([21])
        + bytes(10)
        + b"123456789012\0"
        + plugin
        + b"\0"
    )


GREETINGS = [
    pytest.param([b""], id="it closes at once"),
    pytest.param([b"\x4a\x00"], id="half a header"),
    pytest.param([greeting()[:20]], id="half a greeting"),
    pytest.param([packet(b"")], id="an empty packet"),
    pytest.param([packet(b"\x0a8.4.0")], id="a greeting that ends in the version"),
    pytest.param([packet(b"\x098.4.0\0\x00")], id="another protocol"),
    pytest.param([packet(b"\x0a\xff\xfe\xfd\0" + bytes(3))], id="a version in no encoding"),
    pytest.param([b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"], id="a web server"),
    pytest.param([b"-ERR wrong number of arguments\r\n"], id="Redis"),
    pytest.param([b"\x15\x03\x01\x00\x02\x02\x46"], id="an alert of TLS"),
    pytest.param([refusal(1040, "Too many connections")], id="too many connections"),
    pytest.param([refusal(1129, "Host is blocked")], id="a blocked host"),
    pytest.param([refusal(1130, "Host is not allowed")], id="a host that is not allowed"),
    pytest.param([greeting(), b""], id="it closes after the login"),
    pytest.param([greeting(), packet(b"", 2)], id="an empty answer to the login"),
    pytest.param([greeting(), packet(b"\xfeunknown_plugin\0salt\0", 2)], id="an unknown way to log in"),
    pytest.param([greeting(), packet(b"\x05", 2)], id="an answer that means nothing"),
    pytest.param([greeting(), packet(b"\x00\x00", 9)], id="an answer out of order"),
    pytest.param([greeting(), refusal(1045, "Access denied")], id="a login that is refused"),
]


@pytest.fixture
def said() -> list[bytes]:
    """Return what the false server says: at first, and after each thing that it reads."""
    return []


@pytest.fixture
async def port(said: list[bytes]) -> AsyncIterator[int]:
    """Run a false server, and return its port."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for number, one in enumerate(said):
                if number:
                    await reader.read(65536)
                writer.write(one)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@contextmanager
def connecting_to(app: Starlette, port: int) -> Iterator[None]:
    """Make all engines connect to another port."""

    def redirect(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["port"] = port

    engines = [one.sync_engine for one in (app.state.db.engine, app.state.db.reader)]
    for one in engines:
        event.listen(one, "do_connect", redirect)
    try:
        yield
    finally:
        for one in engines:
            event.remove(one, "do_connect", redirect)


@pytest.fixture
def empty_pools(app: Starlette) -> Callable[[], Any]:
    async def drop() -> None:
        for engine in (app.state.db.engine, app.state.db.reader):
            await engine.dispose()

    return drop


@on_mariadb
@pytest.mark.parametrize("says", GREETINGS)
async def test_it_is_a_503_that_ends_with_the_trouble(
    app: Starlette,
    operator: HeldKey,
    empty_pools: Callable[[], Any],
    port: int,
    said: list[bytes],
    log_lines: list[logging.LogRecord],
    says: list[bytes],
) -> None:
    said += says
    await empty_pools()

    with connecting_to(app, port):
        answers = [
            await call(app, "GET", "/v1/me", key=operator),
            await call(
                app, "POST", "/v1/users", key=operator, body={"email": "ann@example.com", "name": "Ann"}
            ),
            await call(app, "GET", "/readyz"),
        ]
    told = [one for one in log_lines if one.levelno >= logging.WARNING]
    again = await call(app, "GET", "/v1/me", key=operator)

    for one in answers:
        assert_problem(one, 503, "unavailable")
    assert [one.exc_info for one in told] == [None] * len(answers)
    assert again.status == 200
