"""One effect over several processes, whichever dies at whatever moment."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select
from starlette.applications import Starlette

from latchkey.models import IdempotencyKey, User
from latchkey.service.app import create_app
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import KEYRING, on_mariadb, opened, table_of
from tests.mariadb import PrivateMariaDB
from tests.processes import Served
from tests.server.database_proxy import DatabaseProxy
from tests.server.test_processes import BODY, EMAIL, on_the_wire, send_copies

COPIES = 32
ROUNDS = 3
DEADLINE_S = 10


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Starlette]:
    """Return the application in this process, to create keys and to read the rows."""
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


@pytest.fixture
async def operator(app: Starlette) -> HeldKey:
    return await hold_key(app, scopes=["users:write"])


def request_of(key: HeldKey, once: str = "5") -> bytes:
    headers = {**dict([key.bearer]), "content-type": "application/json", "idempotency-key": once}
    return on_the_wire("POST", "/v1/users", headers, BODY)


async def create(served: Served, key: HeldKey, once: str = "5") -> httpx2.Response:
    """Create the user; the claim of a dead copy may last until the server has noticed its end."""
    headers = {**dict([key.bearer]), "content-type": "application/json", "idempotency-key": once}
    async with httpx2.AsyncClient(timeout=DEADLINE_S) as client, asyncio.timeout(DEADLINE_S):
        while True:
            answer = await client.post(f"{served.url}/v1/users", content=BODY, headers=headers)
            if answer.status_code != 409:
                return answer
            assert answer.json()["code"] == "idempotency_in_progress"


async def effects(app: Starlette) -> tuple[int, int]:
    """Count the users that were created, and the claims."""
    async with app.state.db.reader.connect() as connection:
        users = select(func.count()).select_from(User).where(User.email_key == EMAIL)
        claims = select(func.count()).select_from(IdempotencyKey)
        return (await connection.execute(users)).scalar_one(), (await connection.execute(claims)).scalar_one()


def is_replay(text: str) -> bool:
    return "idempotent-replayed: true" in text


@on_mariadb
@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_copies_to_four_processes_have_one_effect(
    app: Starlette, processes: list[Served], operator: HeldKey, round_: int
) -> None:
    replies = await send_copies(processes, request_of(operator), copies=COPIES)

    every = [reply for replied in replies.values() for reply in replied]
    statuses = Counter(reply.status for reply in every)
    assert len(every) == COPIES
    assert statuses.keys() <= {201, 409}, statuses
    assert Counter(is_replay(reply.text) for reply in every if reply.status == 201)[False] == 1
    assert all('"code":"idempotency_in_progress"' in reply.text for reply in every if reply.status == 409)
    assert await effects(app) == (1, 1)
    for served in processes:
        assert "idempotent-replayed" in (await create(served, operator)).headers


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("round_", range(ROUNDS))
async def test_copies_to_one_process_on_sqlite_have_one_effect(
    app: Starlette, settings: Settings, operator: HeldKey, tmp_path: Path, round_: int
) -> None:
    environ = {"LATCHKEY_DATABASE_URL": settings.database_url, "LATCHKEY_KEYRING": KEYRING}
    with Served(tmp_path, "serve", environ=environ) as served:
        replies = await send_copies([served], request_of(operator), copies=COPIES)

    (every,) = replies.values()
    assert Counter(reply.status for reply in every) == {201: COPIES}
    assert Counter(is_replay(reply.text) for reply in every) == {False: 1, True: COPIES - 1}
    assert await effects(app) == (1, 1)


COMMANDS = {
    "the lookup of the key": b"SELECT api_keys.id",
    "the claim": b"INSERT INTO idempotency_keys",
    "the effect": b"INSERT INTO users",
    "the answer": b"UPDATE idempotency_keys",
    "COMMIT": b"\x03COMMIT",
}


@pytest.fixture
async def database_proxy(mariadb: PrivateMariaDB) -> AsyncIterator[DatabaseProxy]:
    assert mariadb.port is not None
    async with DatabaseProxy(mariadb.port) as database_proxy:
        yield database_proxy


@pytest.fixture
async def doomed(
    mariadb_url: str, mariadb: PrivateMariaDB, database_proxy: DatabaseProxy, tmp_path: Path
) -> AsyncIterator[Served]:
    """Start a process whose only connection to the database is the proxy."""
    url = mariadb_url.replace(f":{mariadb.port}/", f":{database_proxy.port}/")
    served = Served(tmp_path, "serve", environ={"LATCHKEY_DATABASE_URL": url, "LATCHKEY_KEYRING": KEYRING})
    await asyncio.to_thread(served.__enter__)
    yield served
    if served.process.poll() is None:
        served.stop(signal.SIGKILL)


@on_mariadb
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
async def test_a_process_that_dies_at_any_command_leaves_one_effect_to_the_retry(
    app: Starlette,
    doomed: Served,
    processes: list[Served],
    operator: HeldKey,
    database_proxy: DatabaseProxy,
    words: bytes,
    when: str,
) -> None:
    """Ten points: before the database gets each of the five commands, and after it has executed it."""
    assert (await create(doomed, operator, once="warm")).status_code == 201
    async with app.state.db.engine.begin() as connection:
        await connection.execute(table_of(User).delete().where(User.email_key == EMAIL))
        await connection.execute(table_of(IdempotencyKey).delete())
    database_proxy.hold(words, when)  # type: ignore[arg-type]  # one of the two

    lost = asyncio.create_task(create(doomed, operator))
    async with asyncio.timeout(DEADLINE_S):
        await database_proxy.held.wait()
    doomed.stop(signal.SIGKILL)
    database_proxy.cut()
    with pytest.raises(httpx2.TransportError):
        await lost

    begun = time.monotonic()
    retry = await create(processes[0], operator)

    assert retry.status_code == 201
    was_committed = words.endswith(b"COMMIT") and when == "after"
    assert ("idempotent-replayed" in retry.headers) is was_committed
    assert await effects(app) == (1, 1)
    assert time.monotonic() - begun < 5


@on_mariadb
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_that_is_lost_at_commit_leaves_one_effect_to_the_retry(
    app: Starlette, doomed: Served, operator: HeldKey, database_proxy: DatabaseProxy, when: str
) -> None:
    """The process lives on, and does not know whether the COMMIT succeeded."""
    database_proxy.hold(COMMANDS["COMMIT"], when)  # type: ignore[arg-type]  # one of the two
    unknown = asyncio.create_task(create(doomed, operator))
    async with asyncio.timeout(DEADLINE_S):
        await database_proxy.held.wait()
    database_proxy.cut()
    answer = await unknown
    database_proxy.hold(b"never", "before")

    retry = await create(doomed, operator)

    assert (answer.status_code, answer.json()["code"]) == (500, "commit_unknown")
    assert retry.status_code == 201
    assert ("idempotent-replayed" in retry.headers) is (when == "after")
    assert await effects(app) == (1, 1)
