"""Copies of calls that another process is still running: they are refused soon, and delay nothing else."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.app import create_app
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import KEYRING, on_mariadb, opened
from tests.mariadb import PrivateMariaDB
from tests.processes import Served
from tests.server.database_proxy import DatabaseProxy

pytestmark = on_mariadb

COPIES = 9
POOL_SIZE = 3
REFUSED_WITHIN_S = 1.5
WRITTEN_WITHIN_S = 0.1
FEWEST_WRITES = 2


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Starlette]:
    """Return the application in this process, with fewer connections than there are copies."""
    settings = msgspec.structs.replace(settings, pool_size=POOL_SIZE)
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


@pytest.fixture
async def operator(app: Starlette) -> HeldKey:
    return await hold_key(app)


@pytest.fixture
async def database_proxy(mariadb: PrivateMariaDB) -> AsyncIterator[DatabaseProxy]:
    assert mariadb.port is not None
    async with DatabaseProxy(mariadb.port) as database_proxy:
        yield database_proxy


@pytest.fixture
async def other(
    mariadb_url: str, mariadb: PrivateMariaDB, database_proxy: DatabaseProxy, tmp_path: Path
) -> AsyncIterator[httpx2.AsyncClient]:
    """Start another process, which stops after its claim and before the effect."""
    url = mariadb_url.replace(f":{mariadb.port}/", f":{database_proxy.port}/")
    pool_size = 2 * COPIES  # one owner holds at most half of it
    environ = {
        "LATCHKEY_DATABASE_URL": url,
        "LATCHKEY_KEYRING": KEYRING,
        "LATCHKEY_POOL_SIZE": str(pool_size),
    }
    served = Served(tmp_path, "serve", environ=environ)
    await asyncio.to_thread(served.__enter__)
    database_proxy.hold(b"INSERT INTO users", "before")
    async with httpx2.AsyncClient(base_url=served.url, timeout=60) as client:
        yield client
        served.process.kill()
        served.process.wait()
        database_proxy.cut()


def body(name: str) -> dict[str, str]:
    return {"email": f"{name}@example.com", "name": "Ann"}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["one"] * COPIES, id="nine copies of one call"),
        pytest.param([f"call{number}" for number in range(COPIES)], id="a copy of each of nine calls"),
    ],
)
async def test_they_are_refused_soon_and_others_write_meanwhile(
    app: Starlette, operator: HeldKey, mariadb: PrivateMariaDB, other: httpx2.AsyncClient, names: list[str]
) -> None:
    """At the default lock wait, which is 50 seconds."""
    assert mariadb.execute("SELECT @@innodb_lock_wait_timeout").strip() == "50"
    claimed = [
        asyncio.create_task(
            other.post(
                "/v1/users", json=body(name), headers=dict([operator.bearer, ("idempotency-key", name)])
            )
        )
        for name in set(names)
    ]
    while int(
        mariadb.execute("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0")
    ) < len(claimed):
        await asyncio.sleep(0.1)
    await call(app, "POST", "/v1/users", key=operator, body=body("warm"))

    async def copy(name: str) -> float:
        begun = time.monotonic()
        answer = await call(
            app, "POST", "/v1/users", key=operator, body=body(name), headers=[("idempotency-key", name)]
        )
        assert_problem(answer, 409, "idempotency_in_progress")
        return time.monotonic() - begun

    copies = [asyncio.create_task(copy(name)) for name in names]
    written_s: list[float] = []
    while not all(one.done() for one in copies):
        number = len(written_s)
        begun = time.monotonic()
        answer = await call(app, "POST", "/v1/users", key=operator, body=body(f"unrelated{number}"))
        written_s.append(time.monotonic() - begun)
        assert answer.status == 201
        await asyncio.sleep(0.1)
    refused_s = await asyncio.gather(*copies)
    for one in claimed:
        one.cancel()

    assert len(written_s) >= FEWEST_WRITES
    assert max(refused_s) < REFUSED_WITHIN_S
    assert statistics.median(written_s) < WRITTEN_WITHIN_S
