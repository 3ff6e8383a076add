"""`LATCHKEY_READ_YOUR_WRITES=gtid`: a read on the replica sees every write that was committed before it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.app import create_app
from latchkey.service.commands.server import require_usable
from latchkey.service.database import replica
from latchkey.service.database.positions import WAIT_S
from latchkey.service.lifespan import lifespan
from latchkey.service.operation import Operation, route
from latchkey.service.settings import Settings, SettingsError
from tests import mysql, wire
from tests.api import HeldKey, call, hold_key
from tests.conftest import KEYRING, migrate, on_mariadb, opened
from tests.faults.servers import ReplicatingMariaDB
from tests.mariadb import PrivateMariaDB, require_or_skip

PROBE_S = 0.1
GTID: Literal["gtid"] = "gtid"

Open = Callable[..., AbstractAsyncContextManager[Starlette]]


class Count(msgspec.Struct):
    users: int


async def count_in_one_step(request: Request) -> Count:
    """Read with the ORM, on one connection."""

    def read(session: Session) -> int:
        return len(session.execute(select(User)).all())

    return Count(users=await request.state.session.run_sync(read))


async def count_prepared(request: Request) -> Count:
    """Read around the ORM."""
    prepared = request.state.session.prepare(select(User.id), lambda _converts: tuple)
    return Count(users=len(await request.state.session.read(prepared, {})))


async def count_own(request: Request) -> Count:
    """Write, commit and read in one call."""
    await User.create(email="own@example.com", name="Own", auto_commit=True)
    return Count(users=len((await request.state.session.execute(select(User))).all()))


ROUTES: Sequence[Operation] = (
    route("GET", "/v1/count", count_in_one_step, scope="users:read"),
    route("GET", "/v1/count-prepared", count_prepared, scope="users:read"),
    route("GET", "/v1/count-own", count_own, scope="users:read"),
)


@pytest.fixture(scope="module")
def primary() -> Iterator[ReplicatingMariaDB]:
    require_or_skip()
    with ReplicatingMariaDB(1) as server:
        asyncio.run(migrate(Settings(database_url=server.url)))
        yield server


@pytest.fixture(scope="module")
def standby(primary: ReplicatingMariaDB) -> Iterator[ReplicatingMariaDB]:
    with ReplicatingMariaDB(2) as server:
        server.follow(primary)
        yield server


@pytest.fixture
def reader_url(primary: ReplicatingMariaDB, standby: ReplicatingMariaDB) -> str:
    return primary.url.replace(f":{primary.port}/", f":{standby.port}/")


@pytest.fixture
def open_app(
    primary: ReplicatingMariaDB,
    standby: ReplicatingMariaDB,
    reader_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    monkeypatch.setattr(replica, "PROBE_EVERY_S", PROBE_S)

    @asynccontextmanager
    async def open_(read_your_writes: Literal["gtid"] | None = GTID) -> AsyncIterator[Starlette]:
        settings = Settings(
            database_url=primary.url,
            reader_url=reader_url,
            read_your_writes=read_your_writes,
            keyring=KEYRING,
            pool_size=4,
        )
        try:
            async with (
                opened(lambda: create_app(settings, routes=ROUTES), settings) as app,
                lifespan(app),
            ):
                yield app
        finally:
            standby.execute("START SLAVE")
            standby.catch_up(primary)

    return open_


async def create_and_count(app: Starlette, key: HeldKey, name: str, path: str) -> tuple[int, float]:
    """Create a user; return the number of users that the next read sees, and how long it took."""
    body = {"email": f"{name}@example.com", "name": name}
    assert (await call(app, "POST", "/v1/users", key=key, body=body)).status == 201
    begun = time.monotonic()
    answer = await call(app, "GET", path, key=key)
    took_s = time.monotonic() - begun
    assert answer.status == 200
    json: Any = answer.json
    return json["users"] if "users" in json else len(json["data"]), took_s


PATHS = ["/v1/users", "/v1/count", "/v1/count-prepared"]


async def status_of(app: Starlette) -> Any:
    return (await call(app, "GET", "/readyz")).json["status"]


async def until_status(app: Starlette, status: str) -> None:
    async with asyncio.timeout(5):
        while await status_of(app) != status:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", PATHS)
async def test_a_read_sees_the_write_before_it_although_the_replica_stands_still(
    open_app: Open, standby: ReplicatingMariaDB, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first read waits for a bounded time, the others do not wait at all, and the replica is used again later."""
    async with open_app() as app:
        key = await hold_key(app)
        await asyncio.to_thread(standby.execute, "STOP SLAVE SQL_THREAD")
        found = [await create_and_count(app, key, f"user{number}", path) for number in range(3)]
        degraded = await status_of(app)
        await asyncio.to_thread(standby.execute, "START SLAVE SQL_THREAD")
        await until_status(app, "ok")
        afterwards, _ = await create_and_count(app, key, "user3", path)

    assert [count for count, _ in found] == [2, 3, 4]
    assert found[0][1] < WAIT_S + 1
    assert degraded == "degraded"
    assert afterwards == 5
    log = capsys.readouterr().err
    assert log.count("the replica is behind, and reads go to the primary") == 1
    assert log.count("the replica has caught up, and is used for reads") == 1


async def test_without_the_setting_a_read_can_see_an_older_state(
    open_app: Open, standby: ReplicatingMariaDB, primary: ReplicatingMariaDB
) -> None:
    async with open_app(read_your_writes=None) as app:
        key = await hold_key(app)
        await asyncio.to_thread(standby.catch_up, primary)
        await asyncio.to_thread(standby.execute, "STOP SLAVE SQL_THREAD")
        found, _ = await create_and_count(app, key, "late", "/v1/count")
        with wire.listening() as sent:
            await call(app, "GET", "/v1/count", key=key)

    assert found == 1
    assert len(sent) == 2, "the lookup and the read"


async def test_a_read_waits_for_a_replica_that_follows(
    open_app: Open, standby: ReplicatingMariaDB, primary: ReplicatingMariaDB
) -> None:
    """Writes of any client are seen, and the replica serves every read."""
    async with open_app() as app:
        key = await hold_key(app)
        await call(app, "GET", "/v1/count", key=key)
        before = reads_of(standby)
        found = [(await create_and_count(app, key, f"user{number}", "/v1/count"))[0] for number in range(10)]
        await asyncio.to_thread(primary.execute, f"DELETE FROM {primary.database}.users WHERE name = 'user9'")
        by_another = (await call(app, "GET", "/v1/count", key=key)).json
        own = (await call(app, "GET", "/v1/count-own", key=key)).json
        status = await status_of(app)

    assert found == list(range(2, 12))
    assert by_another == {"users": 10}
    assert own == {"users": 11}
    assert status == "ok"
    assert reads_of(standby) - before >= 12


def reads_of(server: ReplicatingMariaDB) -> int:
    """Return how many statements a server has sent rows for."""
    return int(server.execute("SHOW GLOBAL STATUS LIKE 'Com_select'").split()[1])


async def test_a_read_costs_one_round_trip_more_and_two_after_a_write(open_app: Open) -> None:
    async with open_app() as app:
        key = await hold_key(app)
        await call(app, "GET", "/v1/count", key=key)
        with wire.listening() as again:
            await call(app, "GET", "/v1/count", key=key)
        await call(app, "POST", "/v1/users", key=key, body={"email": "new@example.com", "name": "New"})
        with wire.listening() as after_write:
            await call(app, "GET", "/v1/count", key=key)
        with wire.listening() as without_reads:
            await call(app, "GET", "/healthz")

    assert (asks(again), waits(again), len(again)) == (1, 0, 3), (
        "a replica that was waited for is not asked again"
    )
    assert (asks(after_write), waits(after_write), len(after_write)) == (1, 1, 4)
    assert without_reads == []


def asks(commands: Sequence[str]) -> int:
    return sum("@@GLOBAL.gtid_binlog_pos" in one for one in commands)


def waits(commands: Sequence[str]) -> int:
    return sum("MASTER_GTID_WAIT" in one for one in commands)


@on_mariadb
async def test_a_primary_without_positions_is_refused_at_the_start(
    settings: Settings, mariadb: PrivateMariaDB
) -> None:
    """The server of the suite writes no binary log, and a MySQL has no such positions."""
    settings = msgspec.structs.replace(settings, reader_url=mariadb.url, read_your_writes=GTID)
    needed = "needs MariaDB" if mysql.is_chosen() else "log_bin"

    async with opened(lambda: create_app(settings), settings) as app:
        with pytest.raises(SettingsError, match=needed):
            async with lifespan(app):
                pass
    with pytest.raises(SettingsError, match=needed):
        await require_usable(settings, (), app.state.latchkey.keyring)


@pytest.mark.parametrize("reader_url", [None, "sqlite+aiosqlite:///copy.db"])
def test_it_needs_a_replica_that_follows(reader_url: str | None) -> None:
    settings = Settings(
        keyring=KEYRING,
        database_url="sqlite+aiosqlite:///some.db",
        reader_url=reader_url,
        read_your_writes=GTID,
    )
    with pytest.raises(SettingsError, match="LATCHKEY_READ_YOUR_WRITES needs"):
        create_app(settings)
