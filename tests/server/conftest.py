"""The whole application behind a real uvicorn on a real socket.

It runs in this process, where its pools can be inspected, and in four separate processes.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from latchkey.models import User
from latchkey.service import shapes
from latchkey.service.app import create_app
from latchkey.service.operation import Operation, route
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import KEYRING, opened
from tests.processes import Served
from tests.sessions.endpoints import NewRow, response_route

POOL_SIZE = 5
PROCESSES = 4
PART = b"x" * 65536
PARTS = 200  # much more than the buffers of a socket


async def stream(request: Request) -> Response:
    """Send a large body, reading the database before each part."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(PARTS):
            await User.filter().first()
            yield PART

    return StreamingResponse(parts())


async def upload(request: Request) -> Response:
    """Read from the database, then receive a body that may be slow."""
    await User.filter().first()
    size = 0
    async for part in request.stream():
        size += len(part)
    return Response(str(size))


async def write_slowly(body: NewRow) -> User:
    """Take a while, then write."""
    await asyncio.sleep(1)
    return await User.create(email=body.email, name="slow")


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        response_route(stream, path="/stream"),
        response_route(upload, "POST", "/upload"),
        route("POST", "/slow", write_slowly, public=True, status=201, answers=shapes.User),
    )


@pytest.fixture(scope="module")
def processes(mariadb_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    with running(mariadb_url, tmp_path_factory) as started:
        yield started


@contextlib.contextmanager
def running(
    mariadb_url: str, tmp_path_factory: pytest.TempPathFactory, **more: str
) -> Iterator[list[Served]]:
    """Run `python -m latchkey serve` four times, each on its own port, so that every process surely gets requests."""
    rules = tmp_path_factory.mktemp("gate") / "gate.toml"
    rules.write_text('[[rules]]\npaths = ["/orders/**"]\nany_key = true\n')
    environ = {
        "LATCHKEY_DATABASE_URL": mariadb_url,
        "LATCHKEY_KEYRING": KEYRING,
        "LATCHKEY_GATE_RULES": str(rules),
        "LATCHKEY_TRUSTED_PROXIES": "127.0.0.1",
        **more,
    }

    def make(number: int) -> Served:
        return Served(tmp_path_factory.mktemp(f"process{number}"), "serve", environ=environ)

    made = [make(number) for number in range(PROCESSES)]
    with contextlib.ExitStack() as running:
        for one in made:
            running.push(one)
        with ThreadPoolExecutor(PROCESSES) as together:
            started = list(together.map(Served.__enter__, made))
        yield started


class Serving(msgspec.Struct):
    """A server at `url`, and its application."""

    app: Starlette
    server: Any
    task: Any
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect with nothing in between."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def stop(self) -> None:
        """Stop the server, and wait."""
        self.server.should_exit = True
        await self.task


@pytest.fixture
async def serving(settings: Settings, routes: Sequence[Operation]) -> AsyncIterator[Serving]:
    """Return a server with a pool of five."""
    settings = msgspec.structs.replace(settings, pool_size=POOL_SIZE, pool_timeout_s=10.0)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        async with opened(lambda: create_app(settings, routes=routes), settings) as app:
            config = uvicorn.Config(
                app, proxy_headers=False, access_log=False, log_config=None, timeout_graceful_shutdown=5
            )
            server = uvicorn.Server(config)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # the test's own
            task = asyncio.create_task(server.serve([listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            found = Serving(app, server, task, listening.getsockname()[1])
            yield found
            await found.stop()


@pytest.fixture
async def operator(serving: Serving) -> HeldKey:
    return await hold_key(serving.app)


@pytest.fixture
async def client(serving: Serving, operator: HeldKey) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=serving.url,
        headers=dict([operator.bearer]),
        timeout=30,
        limits=httpx2.Limits(max_connections=400),
    ) as client:
        yield client
