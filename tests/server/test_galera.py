"""A cluster with simultaneous writes to several nodes. The long form: `make test-galera`."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import asyncmy
import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.service.app import create_app
from latchkey.service.database import cluster as clusters
from latchkey.service.database import driver
from latchkey.service.settings import Settings
from tests import galera
from tests.api import HeldKey, call, hold_key
from tests.conftest import KEYRING, migrate, opened
from tests.galera import GaleraNode, PrivateGalera
from tests.processes import Served
from tests.server.database_proxy import DatabaseProxy
from tests.server.test_idempotency import is_replay, request_of
from tests.server.test_processes import (
    COPIES,
    EMAIL,
    message,
    message_that_reads,
    query,
    query_with_nonce,
    send_copies,
)

pytestmark = [
    pytest.mark.galera,
    pytest.mark.skipif(not galera.is_chosen(), reason="the long form: make test-galera"),
]

CALLS = 40
REVOKED = 60
ROUNDS = 5
HELD_S = 0.3
WHOLE = (204, "deleted", "revoked")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateGalera]:
    with PrivateGalera() as cluster:
        asyncio.run(migrate(Settings(database_url=cluster.nodes[0].url)))
        yield cluster


@pytest.fixture
def node(cluster: PrivateGalera) -> GaleraNode:
    """The node that the service uses."""
    return cluster.nodes[0]


@pytest.fixture
async def other(cluster: PrivateGalera) -> AsyncIterator[Any]:
    """Return a connection to another node, which sees every commit."""
    async with connected(cluster.nodes[1]) as connection:
        yield connection


@asynccontextmanager
async def connected(node: GaleraNode) -> AsyncIterator[Any]:
    url = make_url(node.url)
    connection = await asyncmy.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        db=url.database,
        autocommit=True,
    )
    try:
        await run(connection, "SET SESSION wsrep_sync_wait = 7")
        yield connection
    finally:
        await connection.ensure_closed()


async def run(connection: Any, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    async with connection.cursor() as cursor:
        await cursor.execute(sql, values)
        return list(await cursor.fetchall())


@pytest.fixture
async def database_proxy(node: GaleraNode) -> AsyncIterator[DatabaseProxy]:
    assert node.port is not None
    async with DatabaseProxy(node.port) as database_proxy:
        yield database_proxy


@pytest.fixture
async def app(node: GaleraNode, database_proxy: DatabaseProxy) -> AsyncIterator[Starlette]:
    """Return the application, whose connection to its node can be stopped."""
    url = node.url.replace(f":{node.port}/", f":{database_proxy.port}/")
    settings = Settings(database_url=url, keyring=KEYRING, pool_size=2)
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


@pytest.fixture
async def operator(app: Starlette) -> HeldKey:
    return await hold_key(app)


async def standing(connection: Any, user_id: int) -> tuple[str, str]:
    """Return the status of a user with one key, and that of the key."""
    [found] = await run(
        connection,
        "SELECT users.status, api_keys.status FROM users JOIN api_keys ON user_id = users.id WHERE users.id = %s",
        user_id,
    )
    return found


COMMIT = b"\x03COMMIT"
HOLDS = {
    "the user is changed": b"UPDATE users",
    "its keys are": b"UPDATE api_keys",
    "what was written is read": b"SELECT users.id, users.updated_at",
    "COMMIT": COMMIT,
}


@pytest.mark.parametrize("once", [False, True], ids=["", "with an Idempotency-Key"])
@pytest.mark.parametrize("words", HOLDS.values(), ids=[f"before {name}" for name in HOLDS])
async def test_a_transaction_that_another_node_ends_takes_effect_whole_or_not_at_all(
    app: Starlette,
    operator: HeldKey,
    node: GaleraNode,
    other: Any,
    database_proxy: DatabaseProxy,
    words: bytes,
    once: bool,
) -> None:
    """The service stops between two statements, on a new connection, while another node writes the row."""
    aborted = int(node.status("wsrep_local_bf_aborts"))
    found: Counter[tuple[Any, ...]] = Counter()
    for number in range(CALLS):
        partner = await hold_key(app, email=f"{number}@example.com", scopes=[])
        if words != COMMIT:  # sent while connecting, too, and never prepared
            await app.state.db.engine.dispose()
        database_proxy.pause(words)
        headers = [("idempotency-key", str(number))] if once else []
        deleting = asyncio.create_task(
            call(app, "DELETE", f"/v1/users/{partner.user_id}", key=operator, headers=headers)
        )
        await database_proxy.held.wait()
        await run(other, "UPDATE users SET name = %s WHERE id = %s", f"by another {number}", partner.user_id)
        await asyncio.sleep(HELD_S)
        database_proxy.resume()
        status = (await deleting).status
        found[status, *(await standing(other, partner.user_id))] += 1

    assert int(node.status("wsrep_local_bf_aborts")) - aborted >= CALLS
    assert found == {WHOLE: CALLS}


@pytest.fixture(scope="module")
def services(cluster: PrivateGalera, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    """Run a process on each of two nodes."""
    with ExitStack() as running:
        yield [
            running.enter_context(
                Served(
                    tmp_path_factory.mktemp(f"service{number}"),
                    "serve",
                    environ={"LATCHKEY_DATABASE_URL": node.url, "LATCHKEY_KEYRING": KEYRING},
                )
            )
            for number, node in enumerate(cluster.nodes[:2])
        ]


@pytest.fixture
async def slow_appliers(cluster: PrivateGalera) -> AsyncIterator[Callable[[], object]]:
    """Give the other nodes work to apply, for which later commits must wait."""
    first = cluster.nodes[0]
    first.create_database("lag")
    rows = ",".join(f"({number}, 0)" for number in range(5000))
    first.execute(
        f"CREATE TABLE lag.numbers (id INT PRIMARY KEY, n INT); INSERT INTO lag.numbers VALUES {rows}"
    )
    yield lambda: first.execute("UPDATE lag.numbers SET n = n + 1")
    first.execute("DROP DATABASE lag")


async def test_a_key_that_is_revoked_at_one_node_is_refused_at_the_other(
    app: Starlette, operator: HeldKey, services: list[Served], slow_appliers: Callable[[], object]
) -> None:
    statuses: Counter[int] = Counter()
    async with httpx2.AsyncClient(base_url=services[1].url, timeout=30) as client:
        for number in range(REVOKED):
            partner = await hold_key(app, email=f"{number}@example.com", scopes=[])
            headers = dict([partner.bearer])
            before = await client.get("/v1/me", headers=headers)
            await asyncio.to_thread(slow_appliers)
            revoked = await call(app, "DELETE", f"/v1/keys/{partner.access_key}", key=operator)
            after = await client.get("/v1/me", headers=headers)

            assert (before.status_code, revoked.status) == (200, 204)
            statuses[after.status_code] += 1

    assert statuses == {401: REVOKED}


@pytest.mark.parametrize(
    "make, success",
    [
        pytest.param(message, 201, id="message"),
        pytest.param(message_that_reads, 200, id="message that reads"),
        pytest.param(query, 201, id="query without nonce"),
        pytest.param(query_with_nonce, 201, id="query with nonce"),
    ],
)
async def test_one_of_fifty_copies_to_two_nodes_is_accepted(
    app: Starlette, services: list[Served], make: Callable[..., Any], success: int
) -> None:
    signer = await hold_key(app, mode="signed")
    for _ in range(ROUNDS):
        await asyncio.sleep(1)  # without a nonce, two calls signed in the same second are the same call
        replies = await send_copies(services, make(signer))

        every = Counter(reply.status for replied in replies.values() for reply in replied)
        assert every == {success: 1, 401: COPIES - 1}
        await run_on_writer(app, "DELETE FROM users WHERE email_key = :email", email=EMAIL)


async def test_copies_with_an_idempotency_key_have_one_effect(
    app: Starlette, operator: HeldKey, services: list[Served]
) -> None:
    for number in range(ROUNDS):
        replies = await send_copies(services, request_of(operator, str(number)))

        every = [reply for replied in replies.values() for reply in replied]
        assert {reply.status for reply in every} <= {201, 409}
        assert sum(reply.status == 201 and not is_replay(reply.text) for reply in every) == 1
        assert await User.filter(email_key=EMAIL).count() == 1
        await run_on_writer(app, "DELETE FROM users WHERE email_key = :email", email=EMAIL)


async def run_on_writer(app: Starlette, sql: str, **values: Any) -> None:
    async with app.state.db.engine.begin() as connection:
        await connection.execute(text(sql), values)


@pytest.mark.parametrize(
    "statement, warnings", [(driver.WAIT_FOR_CLUSTER, 0), ("DO 0", 1)], ids=["as we do", "not passed on"]
)
async def test_the_start_warns_of_sessions_that_may_read_what_is_old(
    app: Starlette, monkeypatch: pytest.MonkeyPatch, statement: str, warnings: int
) -> None:
    told: list[str] = []
    monkeypatch.setattr(driver, "WAIT_FOR_CLUSTER", statement)
    monkeypatch.setattr(clusters.log, "warning", lambda said, *values: told.append(said % values))

    await clusters.warn_of_stale_reads(app.state.db.reader)

    assert len(told) == warnings
    assert all("wsrep_sync_wait is 0" in line for line in told)
