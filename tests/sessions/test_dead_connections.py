"""A pooled connection that died while idle costs nobody an answer, and nothing is done twice."""

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import bindparam, func, insert, select, text
from sqlalchemy.exc import DBAPIError

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.conflicts import is_trouble
from latchkey.service.database.prepared import Prepared
from latchkey.service.settings import Settings
from tests.conftest import on_mariadb
from tests.mariadb import PrivateMariaDB
from tests.server.database_proxy import DatabaseProxy

pytestmark = on_mariadb


@pytest.fixture
async def database_proxy(mariadb: PrivateMariaDB) -> AsyncIterator[DatabaseProxy]:
    assert mariadb.port is not None
    async with DatabaseProxy(mariadb.port) as proxy:
        yield proxy


@pytest.fixture
def settings(settings: Settings, mariadb: PrivateMariaDB, database_proxy: DatabaseProxy) -> Settings:
    url = settings.database_url.replace(f":{mariadb.port}/", f":{database_proxy.port}/")
    return msgspec.structs.replace(settings, database_url=url)


async def kill_all(mariadb: PrivateMariaDB) -> None:
    """End all connections of the service on the server, and let the service see it."""
    mariadb.kill_connections()
    await asyncio.sleep(0.1)


async def create(name: str) -> User:
    return await User.create(email=f"{name}@example.com", name=name, auto_commit=True)


async def count(db: SQLAlchemy) -> int:
    async with db.engine.connect() as connection:
        return int(await connection.scalar(select(func.count()).select_from(User)) or 0)


async def test_a_connection_that_the_server_closed_is_replaced(
    db: SQLAlchemy, mariadb: PrivateMariaDB
) -> None:
    await create("ann")
    await kill_all(mariadb)
    await create("bob")
    await kill_all(mariadb)

    assert await User.filter().count() == 2


async def test_the_first_statement_is_sent_again_when_the_connection_is_reset(
    db: SQLAlchemy, database_proxy: DatabaseProxy
) -> None:
    """The network says nothing until the statement is sent, as a balancer that has forgotten the connection."""
    await create("ann")
    database_proxy.reset_at_next_command()
    await create("bob")
    async with db.engine.connect() as connection:
        level = await connection.get_isolation_level()
        charset = await connection.scalar(text("SELECT @@SESSION.character_set_client"))
        waits = await connection.scalar(text("SELECT @@SESSION.innodb_lock_wait_timeout"))

    assert await count(db) == 2
    assert (level, charset, waits) == ("READ COMMITTED", "utf8mb4", 5)


class TestUnreachable:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, database_timeout_s=0.5)

    @pytest.mark.parametrize("silent", [True, False])
    async def test_a_statement_that_cannot_be_sent_again_is_trouble_of_the_database(
        self, db: SQLAlchemy, database_proxy: DatabaseProxy, silent: bool
    ) -> None:
        await create("ann")
        database_proxy.reset_at_next_command()
        port = database_proxy.server_port
        database_proxy.is_deaf = silent
        database_proxy.server_port = 1
        with pytest.raises(DBAPIError) as caught:
            await create("bob")
        database_proxy.is_deaf = False
        database_proxy.server_port = port

        assert is_trouble(caught.value)
        assert await count(db) == 1


async def test_the_second_statement_is_not(db: SQLAlchemy, database_proxy: DatabaseProxy) -> None:
    async with db.scoped_session() as session:
        await session.execute(
            text(
                "INSERT INTO users (email, email_key, name, status, created_at, updated_at) VALUES ('a', 'a', 'a', 'active', NOW(), NOW())"
            )
        )
        database_proxy.reset_at_next_command()
        with pytest.raises(DBAPIError):
            await session.execute(text("DELETE FROM users WHERE email = 'other'"))
        await session.rollback()

    assert await count(db) == 0


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE lost (id INT)", "CALL nothing()", "INSERT INTO users () VALUES (); COMMIT"]
)
async def test_a_statement_that_may_commit_is_not_either(
    db: SQLAlchemy, database_proxy: DatabaseProxy, statement: str
) -> None:
    async with db.engine.connect() as connection:
        database_proxy.reset_at_next_command()
        with pytest.raises(DBAPIError):
            await connection.execute(text(statement))


async def test_a_connection_that_dies_before_its_rollback_is_no_error(
    db: SQLAlchemy, database_proxy: DatabaseProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with db.engine.connect() as connection:
        await connection.execute(text("DELETE FROM nonces"))
        raw = await connection.get_raw_connection()
        database_proxy.reset_at_next_command()
        with caplog.at_level(logging.WARNING):
            await connection.run_sync(lambda _connection: raw.close())
    after = await ids(db)

    assert caplog.records == []
    assert len(after) == 2


async def ids(db: SQLAlchemy) -> tuple[int, ...]:
    """Return the server's number of the pooled connection of each engine."""
    found = []
    for engine in (db.engine, db.reader):
        async with engine.connect() as connection:
            found.append(int(await connection.scalar(text("SELECT CONNECTION_ID()")) or 0))
    return tuple(found)


async def test_a_server_that_takes_no_writes_any_more_loses_the_connections_of_both_engines(
    db: SQLAlchemy, mariadb: PrivateMariaDB
) -> None:
    """Another server may have taken over its name."""
    before = await ids(db)
    mariadb.execute("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(DBAPIError):
            await create("ann")
    finally:
        mariadb.execute("SET GLOBAL read_only = 0")
    after = await ids(db)
    again = await ids(db)

    assert not set(before) & set(after)
    assert again == after


@pytest.mark.parametrize("read_only", ["the writer", "the AUTOCOMMIT engine"])
async def test_either_engine_notices(db: SQLAlchemy, mariadb: PrivateMariaDB, read_only: str) -> None:
    before = await ids(db)
    mariadb.execute("SET GLOBAL read_only = 1")
    engine = db.engine if read_only == "the writer" else db.reader
    try:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError):
                await connection.execute(text("DELETE FROM nonces"))
    finally:
        mariadb.execute("SET GLOBAL read_only = 0")

    assert not set(before) & set(await ids(db))


async def test_a_prepared_statement_notices(db: SQLAlchemy, mariadb: PrivateMariaDB) -> None:
    before = await ids(db)
    forgotten = Prepared(
        insert(User).values(email=bindparam("email"), email_key=bindparam("email"), name="a")
    )
    mariadb.execute("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(DBAPIError):
            await forgotten.run(db.reader, {"email": "ann@example.com"})
    finally:
        mariadb.execute("SET GLOBAL read_only = 0")

    assert not set(before) & set(await ids(db))


class TestIdle:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, connection_idle_s=2.0)

    async def test_a_connection_that_was_idle_for_too_long_is_replaced(self, db: SQLAlchemy) -> None:
        before = await ids(db)
        soon = await ids(db)
        await asyncio.sleep(2.1)

        assert soon == before
        assert not set(before) & set(await ids(db))


async def test_the_servers_own_timeout_is_asked(db: SQLAlchemy, mariadb: PrivateMariaDB) -> None:
    """A connection is replaced before the server closes it."""
    usual = mariadb.execute("SELECT @@GLOBAL.wait_timeout").strip()
    mariadb.execute("SET GLOBAL wait_timeout = 7")
    try:
        before = await ids(db)
    finally:
        mariadb.execute(f"SET GLOBAL wait_timeout = {usual}")
    async with db.engine.connect() as one, db.reader.connect() as other:
        connections = [(await each.get_raw_connection()).driver_connection for each in (one, other)]
        asked = [connection.wait_timeout_s for connection in connections]
        for connection in connections:
            connection.wait_timeout_s = 0.2
    await asyncio.sleep(0.19)

    assert asked == [7, 7]
    assert not set(before) & set(await ids(db))
