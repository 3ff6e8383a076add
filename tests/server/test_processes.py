"""Several processes on one MariaDB, which share only the database."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.service.app import create_app
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import on_mariadb, opened
from tests.processes import Served
from tests.server.conftest import PROCESSES

COPIES = 50
ROUNDS = 3
HOST = "api.example.com"  # one name for all, as behind a load balancer: a signature covers it
EMAIL = "once@example.com"
BODY = b'{"email":"once@example.com","name":"Once"}'


class Reply(msgspec.Struct, frozen=True):
    """The answer to one copy."""

    status: int
    text: str


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Starlette]:
    """Return the application in this process, to create keys and to read the rows."""
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


@pytest.fixture
async def signer(app: Starlette) -> HeldKey:
    return await hold_key(app, mode="signed")


def message(signer: HeldKey) -> bytes:
    """Return a signed message with its nonce."""
    headers = sign_message(
        signer.secret,
        signer.access_key,
        time.time(),
        method="POST",
        scheme="http",
        authority=HOST,
        raw_path="/v1/users",
        nonce=secrets.token_urlsafe(),
        body=BODY,
        content_type="application/json",
    )
    return on_the_wire("POST", "/v1/users", headers, BODY)


def message_that_reads(signer: HeldKey) -> bytes:
    """Return a signed message of a safe method: its nonce can be used only once, too."""
    headers = sign_message(
        signer.secret,
        signer.access_key,
        time.time(),
        method="GET",
        scheme="http",
        authority=HOST,
        raw_path="/v1/me",
        nonce=secrets.token_urlsafe(),
    )
    return on_the_wire("GET", "/v1/me", headers)


def query_with_nonce(signer: HeldKey) -> bytes:
    return query(signer, nonce=secrets.token_urlsafe())


def query(signer: HeldKey, nonce: str | None = None) -> bytes:
    """Return a signed query; without a nonce, the signature acts as one."""
    signed, mac = sign_query(
        signer.secret,
        "",
        signer.access_key,
        time.time(),
        method="POST",
        path="/v1/users",
        body=BODY,
        nonce=nonce,
    )
    return on_the_wire(
        "POST", f"/v1/users?{signed}", {"secret": mac, "content-type": "application/json"}, BODY
    )


def on_the_wire(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    sent = {"host": HOST, **headers, "connection": "close"}
    if body:
        sent["content-length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def send_copies(
    processes: list[Served], request: bytes, copies: int = COPIES
) -> dict[int, list[Reply]]:
    """Send copies of a request at the same moment, to each process in turn; return the reply of each.

    The last byte of every copy is held back until all of them are connected.
    """
    gathered = asyncio.Barrier(copies)
    replies: dict[int, list[Reply]] = {one.process.pid: [] for one in processes}

    async def send(to: Served) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        writer.write(request[:-1])
        await writer.drain()
        await gathered.wait()
        writer.write(request[-1:])
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        replies[to.process.pid].append(Reply(int(answer.split(" ", 2)[1]), answer))

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(copies):
            group.create_task(send(processes[number % len(processes)]))
    return replies


@on_mariadb
@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize(
    "make, success",
    [
        pytest.param(message, 201, id="message"),
        pytest.param(message_that_reads, 200, id="message that reads"),
        pytest.param(query, 201, id="query without nonce"),
        pytest.param(query_with_nonce, 201, id="query with nonce"),
    ],
)
async def test_one_of_fifty_copies_is_accepted(
    app: Starlette,
    processes: list[Served],
    signer: HeldKey,
    make: Callable[[HeldKey], bytes],
    success: int,
    round_: int,
) -> None:
    await assert_one_is_accepted(processes, make(signer), success)


async def assert_one_is_accepted(processes: list[Served], request: bytes, success: int) -> None:
    """Send copies of a request to all processes, and assert that exactly one is accepted."""
    replies = await send_copies(processes, request)

    every = [reply for replied in replies.values() for reply in replied]
    assert len(replies) == PROCESSES
    assert min(len(replied) for replied in replies.values()) == COPIES // PROCESSES
    assert Counter(reply.status for reply in every) == {success: 1, 401: COPIES - 1}
    assert [
        reply.text for reply in every if reply.status == 401 and '"code":"replayed"' not in reply.text
    ] == []
    assert await User.filter_by(email_key=EMAIL).count() == int(success == 201)
