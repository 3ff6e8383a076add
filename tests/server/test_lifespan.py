"""Bytes after the headers never become headers, even if the server does not start the application."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.server.raw_requests import README_COMMAND, ServerWithKeys, exchange, head, serve_with_keys

MOUNTED = """
import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.routing import Mount

from latchkey.service.app import create_app as latchkey


@contextlib.asynccontextmanager
async def run(app):
    async with inner.router.lifespan_context(inner):
        yield


@contextlib.asynccontextmanager
async def run_in_a_task(app):
    started, stop = asyncio.Event(), asyncio.Event()

    async def inside():
        async with inner.router.lifespan_context(inner):
            started.set()
            await stop.wait()

    task = asyncio.create_task(inside())
    await started.wait()
    yield
    stop.set()
    await task


def create(lifespan):
    global inner
    inner = latchkey()
    return Starlette(routes=[Mount("/", inner)], lifespan=lifespan)


def without():
    return create(None)


def within():
    return create(run)


def beside():
    return create(run_in_a_task)
"""
SCRIPT = """
import asyncio
import sys

import uvicorn

from latchkey.service.app import create_app


async def main():
    config = uvicorn.Config(create_app(), lifespan="off", proxy_headers=False, port=int(sys.argv[-1]))
    await uvicorn.Server(config).serve()


asyncio.run(main())
"""
ENVIRON = {"LATCHKEY_TRUSTED_PROXIES": "127.0.0.1/32"}
OFF = [*README_COMMAND, "--lifespan", "off"]
CHUNK_AND_TRAILER = "3\r\n{{}}\n\r\n0\r\n{}\r\n\r\n"


def mounted(factory: str) -> list[str]:
    return ["uvicorn", "--factory", f"mounted:{factory}", "--no-proxy-headers"]


Serve = Callable[[list[str]], AbstractContextManager[ServerWithKeys]]


@pytest.fixture(scope="module")
def serve(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Serve with a command, in a new folder."""

    def run(arguments: list[str]) -> AbstractContextManager[ServerWithKeys]:
        folder = tmp_path_factory.mktemp("served")
        (folder / "mounted.py").write_text(MOUNTED)
        (folder / "script.py").write_text(SCRIPT)
        shutil.copy(sqlite_template, folder / "latchkey.db")
        url = f"sqlite+aiosqlite:///{folder}/latchkey.db"
        return serve_with_keys(folder, url, arguments=arguments, environ=ENVIRON)

    return run


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(OFF, id="lifespan-off"),
        pytest.param([*OFF, "--http", "h11"], id="lifespan-off-h11"),
        pytest.param([*OFF, "--log-level", "trace"], id="lifespan-off-trace"),
        pytest.param(["script"], id="lifespan-off-script"),
        pytest.param(mounted("without"), id="mounted-without-lifespan"),
        pytest.param(mounted("beside"), id="mounted-with-lifespan-in-a-task"),
    ],
)
def unsafe(request: pytest.FixtureRequest, serve: Serve) -> Iterator[ServerWithKeys]:
    """Run a server that has not installed the protocol."""
    with serve(request.param) as found:
        yield found


@pytest.fixture(scope="module", params=[pytest.param(mounted("within"), id="mounted-with-lifespan")])
def safe(request: pytest.FixtureRequest, serve: Serve) -> Iterator[ServerWithKeys]:
    """Run a server that has installed it although another application mounts this one."""
    with serve(request.param) as found:
        yield found


def chunked(trailer: str, method: str = "GET", path: str = "/v1/me", *headers: str) -> bytes:
    """Return a request with a chunked body and a trailer."""
    body = CHUNK_AND_TRAILER.format(trailer).encode()
    return head(method, path, "transfer-encoding: chunked", "content-type: application/json", *headers) + body


@pytest.mark.parametrize("method, path", [("GET", "/v1/me"), ("POST", "/v1/users"), ("GET", "/nothing")])
def test_a_chunked_body_is_refused(unsafe: ServerWithKeys, method: str, path: str) -> None:
    """Its trailer would be a credential."""
    (reply,) = exchange(unsafe.port, chunked(f"authorization: Bearer {unsafe.bearer}", method, path))

    assert (reply.status, reply.code) == (503, "server_not_started")
    assert reply.headers["connection"] == "close"


def test_the_address_of_the_client_is_not_forged(unsafe: ServerWithKeys) -> None:
    request = chunked(
        "x-forwarded-for: 198.51.100.7", "GET", "/v1/me", f"authorization: Bearer {unsafe.bound}"
    )

    assert [one.status for one in exchange(unsafe.port, request)] == [503]


def test_the_body_of_an_upgrade_is_no_request(unsafe: ServerWithKeys) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    request = (
        "POST /v1/users HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
        f"content-length: {len(smuggled)}\r\n\r\n"
    )

    (reply,) = exchange(unsafe.port, request.encode())
    with contextlib.suppress(ConnectionError):  # the connection was closed after the answer
        exchange(unsafe.port, request.encode(), smuggled)
    time.sleep(0.2)

    assert (reply.status, reply.headers["connection"]) == (503, "close")
    assert "/smuggled" not in unsafe.served.err.read_text()


def test_a_request_that_cannot_be_read_wrongly_is_taken(unsafe: ServerWithKeys) -> None:
    body = b'{"email":"taken@example.com","name":"n"}'
    headers = [f"authorization: Bearer {unsafe.bearer}", "content-type: application/json"]
    request = head("POST", "/v1/users", *headers, f"content-length: {len(body)}") + body

    assert [one.status for one in exchange(unsafe.port, request)] == [201]
    assert [one.status for one in exchange(unsafe.port, head("GET", "/v1/me", headers[0]))] == [200]


def test_the_log_says_what_to_do(unsafe: ServerWithKeys) -> None:
    """Once a second, however many requests are refused."""
    before = unsafe.served.err.read_text().count("run the lifespan")
    time.sleep(1.1)
    began = time.monotonic()
    for _ in range(50):
        exchange(unsafe.port, chunked("x: y"))
    lines = unsafe.served.err.read_text().count("run the lifespan") - before

    assert 1 <= lines <= time.monotonic() - began + 2


def test_a_lifespan_within_that_of_another_application_is_a_start(safe: ServerWithKeys) -> None:
    trailer = f"authorization: Bearer {safe.bearer}"

    assert [one.status for one in exchange(safe.port, chunked(trailer))] == [401]
    assert [one.status for one in exchange(safe.port, chunked("x: y", "GET", "/v1/me", trailer))] == [200]
