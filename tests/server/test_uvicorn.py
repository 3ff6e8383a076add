"""Tests that need a real server: sockets, slow clients, clients that disconnect, and a shutdown."""

import asyncio
from collections import Counter

import httpx2
from sqlalchemy import func, select

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from tests.server.conftest import PART, PARTS, POOL_SIZE, Serving


async def rows(email: str) -> int:
    async with SQLAlchemy().reader.connect() as connection:
        found = select(func.count()).select_from(User).where(User.email.like(email))
        return (await connection.execute(found)).scalar_one()


async def until_nothing_is_held() -> None:
    """Wait until every request is blocked at its socket; fail when a connection stays checked out."""
    async with asyncio.timeout(10):
        calm = 0
        while calm < 20:
            await asyncio.sleep(0.01)
            calm = 0 if SQLAlchemy().checked_out() else calm + 1


async def test_one_connection_serves_one_request_after_the_other(
    serving: Serving, client: httpx2.AsyncClient
) -> None:
    seen = set()
    for number in range(20):
        created = await client.post("/v1/users", json={"email": f"{number}@x", "name": "n"})
        read = await client.get(created.headers["location"])
        assert read.json() == created.json()
        seen.add(read.json()["id"])

    assert len(seen) == 20
    assert len(serving.server.server_state.connections) == 1


async def test_200_requests_at_a_time_share_a_pool_of_five(
    serving: Serving, client: httpx2.AsyncClient
) -> None:
    """Each gets its own answer, and none an error."""

    async def one(number: int) -> tuple[int, str]:
        if number % 4:
            answer = await client.get(f"/v1/users?email=none-{number}@x")
            return answer.status_code, str(answer.json()["data"])
        answer = await client.post("/v1/users", json={"email": f"many-{number}@x", "name": f"n{number}"})
        return answer.status_code, answer.json()["name"]

    answers = await asyncio.gather(*(one(number) for number in range(200)))

    assert Counter(status for status, _ in answers) == {200: 150, 201: 50}
    assert [text for status, text in answers if status == 201] == [
        f"n{number}" for number in range(0, 200, 4)
    ]
    assert await rows("many-%") == 50
    await until_nothing_is_held()


async def test_slow_readers_hold_no_connection(serving: Serving, client: httpx2.AsyncClient) -> None:
    """More than the pool has connections, each in the middle of a body that is read from the database."""
    readers = []
    for _ in range(POOL_SIZE * 2):
        reader, writer = await serving.client()
        writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readexactly(1000)
        readers.append((reader, writer))
    await until_nothing_is_held()

    assert (await client.get("/v1/me")).status_code == 200

    whole = await client.get("/stream")
    assert len(whole.content) == len(PART) * PARTS
    for _, writer in readers:  # they disconnect without having read to the end
        writer.close()


async def test_slow_uploaders_hold_no_connection(serving: Serving, client: httpx2.AsyncClient) -> None:
    uploads = []
    for _ in range(POOL_SIZE * 2):
        reader, writer = await serving.client()
        writer.write(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
        uploads.append((reader, writer))
    await until_nothing_is_held()

    assert (await client.get("/v1/me")).status_code == 200

    for reader, writer in uploads:
        writer.write(b"67890")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(2) == b"10"
        writer.close()


async def test_a_client_that_goes_away_leaves_nothing(serving: Serving, client: httpx2.AsyncClient) -> None:
    """In the middle of its body, of the endpoint's work, and of the answer."""
    for request in (
        b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345",
        b'POST /slow HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{"email": "g@x"}',
        b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n",
    ):
        _, writer = await serving.client()
        writer.write(request)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()
    while serving.server.server_state.tasks:
        await asyncio.sleep(0.01)

    assert (await client.get("/v1/me")).status_code == 200
    assert await rows("g@x") == 1, "the write went on without its client: it may commit without an answer"
    await until_nothing_is_held()
    assert SQLAlchemy().scoped_session.registry.registry == {}


async def test_a_graceful_shutdown_finishes_what_it_has_begun(
    serving: Serving, client: httpx2.AsyncClient
) -> None:
    """Every 201 has its row, and requests in progress are answered."""
    writes = [
        asyncio.create_task(client.post("/slow", json={"email": f"last-{number}@x"})) for number in range(20)
    ]
    while len(serving.server.server_state.tasks) < len(writes):
        await asyncio.sleep(0.01)
    db = SQLAlchemy()
    engine = db.engine
    await serving.stop()
    answers = await asyncio.gather(*writes)

    assert {answer.status_code for answer in answers} == {201}
    assert not db.is_open
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # QueuePool
