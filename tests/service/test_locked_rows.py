"""A lock that another transaction holds delays a call by `LATCHKEY_LOCK_WAIT_S`, once."""

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.applications import Starlette

from latchkey.service.database.engines import create_engines
from latchkey.service.database.lock import locked
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import on_mariadb

LOCK_WAIT_S = 1
WRITERS = 40
KEY = {"mode": "bearer", "scopes": []}
WRITTEN_WITHIN_S = 1.0
SLACK_S = 0.9  # less than a second wait


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, lock_wait_s=LOCK_WAIT_S, pool_size=10)


@pytest.fixture
async def outside(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Return a connection in a transaction of another program; it holds SQLite's lock from the beginning."""
    engine = create_engines(settings).writer
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()
    await engine.dispose()


async def test_a_locked_row_is_waited_for_once(
    app: Starlette, operator: HeldKey, outside: AsyncConnection
) -> None:
    await outside.execute(
        text(
            "SELECT id FROM users" if outside.dialect.name == "sqlite" else "SELECT id FROM users FOR UPDATE"
        )
    )
    begun = time.monotonic()
    answer = await call(app, "PATCH", f"/v1/users/{operator.user_id}", key=operator, body={"name": "Ann"})
    took_s = time.monotonic() - begun
    await outside.rollback()
    after = await call(app, "PATCH", f"/v1/users/{operator.user_id}", key=operator, body={"name": "Ann"})

    assert_problem(answer, 503, "unavailable")
    assert "holds a lock" in answer.json["detail"]
    assert answer.headers["retry-after"] == "1"
    assert LOCK_WAIT_S - 0.1 < took_s < LOCK_WAIT_S + SLACK_S
    assert after.status == 200


@on_mariadb
async def test_a_table_that_is_being_altered_is_waited_for_once(
    app: Starlette, operator: HeldKey, outside: AsyncConnection
) -> None:
    await outside.execute(text("LOCK TABLES users WRITE"))
    begun = time.monotonic()
    answer = await call(app, "GET", f"/v1/users/{operator.user_id}", key=operator)
    took_s = time.monotonic() - begun
    await outside.execute(text("UNLOCK TABLES"))

    assert_problem(answer, 503, "unavailable")
    assert took_s < LOCK_WAIT_S + SLACK_S


@on_mariadb
@pytest.mark.parametrize("locked_row", ["the path's", "the owner's"])
async def test_the_writers_of_a_locked_row_leave_connections_to_others(
    app: Starlette, operator: HeldKey, outside: AsyncConnection, locked_row: str
) -> None:
    other = await hold_key(app, email="other@example.com")
    made = await call(
        app, "POST", "/v1/users", key=operator, body={"email": "ann@example.com", "name": "Ann"}
    )
    path = f"/v1/users/{made.json['id']}"
    locked_id = made.json["id"] if locked_row == "the path's" else operator.user_id
    await outside.execute(text("SELECT id FROM users WHERE id = :id FOR UPDATE"), {"id": locked_id})
    blocked = [
        asyncio.create_task(
            call(app, "PATCH", path, key=operator, body={"name": f"name {number}"})
            if locked_row == "the path's"
            else call(app, "POST", "/v1/me/keys", key=operator, body={**KEY, "name": f"key {number}"})
        )
        for number in range(WRITERS)
    ]
    took_s: list[float] = []
    while not all(one.done() for one in blocked):
        begun = time.monotonic()
        answer = await call(
            app, "PATCH", f"/v1/users/{other.user_id}", key=other, body={"name": f"name {len(took_s)}"}
        )
        took_s.append(time.monotonic() - begun)
        assert answer.status == 200
        await asyncio.sleep(0.01)
    await outside.rollback()

    for one in blocked:
        assert_problem(one.result(), 503, "unavailable")
    assert len(took_s) > WRITERS / 4
    assert max(took_s) < WRITTEN_WITHIN_S


@on_mariadb
@pytest.mark.parametrize("name", ["innodb_lock_wait_timeout", "lock_wait_timeout"])
async def test_a_migration_waits_as_long_as_the_server_does(app: Starlette, name: str) -> None:
    read = text(f"SELECT @@GLOBAL.{name}, @@SESSION.{name}")
    async with locked(app.state.db.engine, "test") as connection:
        assert connection is not None
        of_server, of_migration = (await connection.execute(read)).one()
    async with app.state.db.engine.connect() as connection:
        _, of_call = (await connection.execute(read)).one()

    assert of_migration == of_server > of_call == LOCK_WAIT_S
