"""A lock that another transaction holds delays a call by `LATCHKEY_LOCK_WAIT_S`, once."""

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
from tests.api import HeldKey, assert_problem, call
from tests.conftest import on_mariadb

LOCK_WAIT_S = 1
SLACK_S = 0.9  # less than a second wait


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, lock_wait_s=LOCK_WAIT_S)


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
@pytest.mark.parametrize("name", ["innodb_lock_wait_timeout", "lock_wait_timeout"])
async def test_a_migration_waits_as_long_as_the_server_does(app: Starlette, name: str) -> None:
    read = text(f"SELECT @@GLOBAL.{name}, @@SESSION.{name}")
    async with locked(app.state.db.engine, "test") as connection:
        assert connection is not None
        of_server, of_migration = (await connection.execute(read)).one()
    async with app.state.db.engine.connect() as connection:
        _, of_call = (await connection.execute(read)).one()

    assert of_migration == of_server > of_call == LOCK_WAIT_S
