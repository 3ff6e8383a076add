"""A replica that is down or silent costs no answer: safe methods read on the primary until it answers again."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.app import create_app
from latchkey.service.database import replica
from latchkey.service.lifespan import lifespan
from latchkey.service.operation import Operation, route
from latchkey.service.settings import Settings
from tests.api import HeldKey, call, hold_key
from tests.conftest import on_mariadb, opened
from tests.mariadb import PrivateMariaDB
from tests.server.database_proxy import DatabaseProxy

pytestmark = on_mariadb

PROBE_S = 0.2
NOTICED_WITHIN_S = 3.0  # and not after LATCHKEY_DATABASE_TIMEOUT_S, which is 15 seconds


class Count(msgspec.Struct):
    users: int


async def count_in_one_step(request: Request) -> Count:
    """Read twice on one connection."""

    def read(session: Session) -> int:
        session.execute(select(User))
        return len(session.execute(select(User)).all())

    return Count(users=await request.state.session.run_sync(read))


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (route("GET", "/v1/count", count_in_one_step, scope="users:read"),)


@pytest.fixture
async def proxy(mariadb: PrivateMariaDB) -> AsyncIterator[DatabaseProxy]:
    """Stand before the replica, which is the primary itself: it is never behind."""
    assert mariadb.port is not None
    async with DatabaseProxy(mariadb.port) as proxy:
        yield proxy


@pytest.fixture
async def app(
    settings: Settings,
    mariadb: PrivateMariaDB,
    proxy: DatabaseProxy,
    routes: Sequence[Operation],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Starlette]:
    monkeypatch.setattr(replica, "PROBE_EVERY_S", PROBE_S)
    url = settings.database_url.replace(f":{mariadb.port}/", f":{proxy.port}/")
    settings = msgspec.structs.replace(settings, reader_url=url)
    async with opened(lambda: create_app(settings, routes=routes), settings) as app, lifespan(app):
        yield app
        proxy.release()
        proxy.cut()


@pytest.fixture
async def operator(app: Starlette) -> HeldKey:
    return await hold_key(app)


PATHS = ["/v1/users", "/v1/me", "/v1/count"]


async def until_ready(app: Starlette, status: str) -> None:
    """Wait until the service reports a status; it is always ready."""
    async with asyncio.timeout(5):
        while True:
            answer = await call(app, "GET", "/readyz")
            assert answer.status == 200
            if answer.json == {"status": status}:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", PATHS)
async def test_a_replica_that_is_down_costs_no_answer(
    app: Starlette, operator: HeldKey, proxy: DatabaseProxy, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = await call(app, "GET", path, key=operator)
    port, proxy.server_port = proxy.server_port, 1
    proxy.cut()
    with caplog.at_level(logging.INFO, "latchkey.database"):
        found = [await call(app, "GET", path, key=operator) for _ in range(5)]
        await until_ready(app, "degraded")
        proxy.server_port = port
        await until_ready(app, "ok")

    assert [one.status for one in (before, *found)] == [200] * 6
    lines = [line.getMessage() for line in caplog.records if "replica" in line.getMessage()]
    assert len(lines) == 2, "one when it goes, one when it is back"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pooled", [True, False])
async def test_a_silent_replica_delays_a_read_until_the_probe_notices(
    app: Starlette, operator: HeldKey, proxy: DatabaseProxy, path: str, pooled: bool
) -> None:
    """A read waits for at most one probe, not for LATCHKEY_DATABASE_TIMEOUT_S."""
    if pooled:
        await call(app, "GET", path, key=operator)
    proxy.is_deaf = True
    proxy.hold(b"", "before", whole=True)
    begun = time.monotonic()
    answers = await asyncio.gather(*(call(app, "GET", path, key=operator) for _ in range(10)))
    took_s = time.monotonic() - begun

    assert {one.status for one in answers} == {200}
    assert took_s < NOTICED_WITHIN_S
    await until_ready(app, "degraded")
