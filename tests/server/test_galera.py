"""A cluster whose nodes are written at the same time. The long form: `make test-galera`."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncmy
import pytest
from sqlalchemy.engine import make_url
from starlette.applications import Starlette

from latchkey.service.app import create_app
from latchkey.service.settings import Settings
from tests import galera
from tests.api import HeldKey, call, hold_key
from tests.conftest import KEYRING, migrate, opened
from tests.galera import GaleraNode, PrivateGalera
from tests.server.tap import Tap

pytestmark = [
    pytest.mark.galera,
    pytest.mark.skipif(not galera.is_chosen(), reason="the long form: make test-galera"),
]

CALLS = 40
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
    """A connection to another node, which sees what was committed anywhere."""
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
async def tap(node: GaleraNode) -> AsyncIterator[Tap]:
    assert node.port is not None
    async with Tap(node.port) as tap:
        yield tap


@pytest.fixture
async def app(node: GaleraNode, tap: Tap) -> AsyncIterator[Starlette]:
    """The application, whose way to its node can be held."""
    url = node.url.replace(f":{node.port}/", f":{tap.port}/")
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
    app, operator, node, other, tap, words, once
):
    """The service stands still between two statements, on a new connection, while another node writes the row."""
    aborted = int(node.status("wsrep_local_bf_aborts"))
    found: Counter[tuple[Any, ...]] = Counter()
    for number in range(CALLS):
        partner = await hold_key(app, email=f"{number}@example.com", scopes=[])
        if words != COMMIT:  # which is sent while connecting, too, and is never prepared
            await app.state.db.engine.dispose()
        tap.pause(words)
        headers = [("idempotency-key", str(number))] if once else []
        deleting = asyncio.create_task(
            call(app, "DELETE", f"/v1/users/{partner.user_id}", key=operator, headers=headers)
        )
        await tap.held.wait()
        await run(other, "UPDATE users SET name = %s WHERE id = %s", f"by another {number}", partner.user_id)
        await asyncio.sleep(HELD_S)
        tap.resume()
        status = (await deleting).status
        found[status, *(await standing(other, partner.user_id))] += 1

    assert int(node.status("wsrep_local_bf_aborts")) - aborted >= CALLS
    assert found == {WHOLE: CALLS}
