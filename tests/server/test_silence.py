"""A server that stops answering at any point delays a call by at most `LATCHKEY_DATABASE_TIMEOUT_S`."""

import time
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from starlette.applications import Starlette

from latchkey.service.app import create_app
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import KEYRING, opened
from tests.mariadb import PrivateMariaDB
from tests.requests import Answer
from tests.server.database_proxy import DatabaseProxy
from tests.service.limits.rules import limit

pytestmark = pytest.mark.mariadb

TIMEOUT_S = 0.5
SLACK_S = 0.6  # for what a busy machine takes beside

COMMANDS = {
    "the lookup of the key": b"SELECT api_keys.id",
    "the nonce": b"INSERT INTO nonces",
    "the counters": b"limit_counters",
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
async def app(
    mariadb_url: str,
    mariadb: PrivateMariaDB,
    database_proxy: DatabaseProxy,
    outage: Literal["refuse", "allow"],
) -> AsyncIterator[Starlette]:
    """Return the application, whose only connection to the database is the proxy."""
    url = mariadb_url.replace(f":{mariadb.port}/", f":{database_proxy.port}/")
    settings = Settings(
        database_url=url,
        keyring=KEYRING,
        pool_size=2,
        database_timeout_s=TIMEOUT_S,
        limits_on_outage=outage,
    )
    async with opened(lambda: create_app(settings), settings) as app:
        yield app
        database_proxy.release()
        database_proxy.cut()


@pytest.fixture
async def signer(app: Starlette) -> HeldKey:
    return await hold_key(app, mode="signed", limits=[limit("burst", 1000)])


async def create(app: Starlette, key: HeldKey, name: str) -> Answer:
    return await call(
        app,
        "POST",
        "/v1/users",
        key=key,
        body={"email": f"{name}@example.com", "name": "Ann"},
        headers=[("idempotency-key", name)],
    )


@pytest.mark.parametrize(
    "when, pooled, outage",
    [
        pytest.param("before", True, "refuse", id="before"),
        pytest.param("after", True, "refuse", id="after"),
        pytest.param(
            "before", False, "allow", id="before, on a new connection, and without limits meanwhile"
        ),
    ],
)
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
async def test_a_call_ends_within_one_timeout(
    app: Starlette,
    signer: HeldKey,
    database_proxy: DatabaseProxy,
    words: bytes,
    when: Literal["before", "after"],
    pooled: bool,
) -> None:
    assert (await create(app, signer, "warm")).status == 201
    if not pooled:
        for engine in (app.state.db.engine, app.state.db.reader):
            await engine.dispose()
    database_proxy.hold(words, when, whole=True)

    begun = time.monotonic()
    answer = await create(app, signer, "ann")
    took_s = time.monotonic() - begun

    assert database_proxy.held.is_set()
    if words == COMMANDS["COMMIT"] and answer.status == 500:
        assert_problem(answer, 500, "commit_unknown")
    else:
        assert_problem(answer, 503, "unavailable")
    assert took_s < TIMEOUT_S + SLACK_S
