"""Fixtures: two kinds of database, the open one, and the promises that are checked after every test."""

import asyncio
import gc
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncmy
import hypothesis
import pytest
from asyncmy.constants import CLIENT
from sqlalchemy import MetaData, Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase

from latchkey.models import Base
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.database import SQLAlchemy, driver, schema, sqlite
from latchkey.service.database.engines import create_engines
from latchkey.service.outbox.listeners import listeners
from latchkey.service.settings import Settings
from tests import mysql, wire
from tests.mariadb import PrivateMariaDB, require_or_skip
from tests.redis import PrivateRedis
from tests.sqlite import assert_closed, watched_connection

KEYRING = KeyRing.generate_text()

# A slow machine is not a failure of the example.
hypothesis.settings.register_profile("latchkey", deadline=None)
hypothesis.settings.load_profile("latchkey")

Opened = TypeVar("Opened")


def pytest_collection_finish() -> None:
    """Leave what exists already, half a million objects, out of every collection of garbage.

    What a test leaves is collected after it; the collections of the oldest generation, which are slow, are fewer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], 50)


@pytest.fixture(scope="session")
def anyio_backend() -> Any:
    return "asyncio", {"use_uvloop": os.environ.get("LATCHKEY_TEST_UVLOOP") == "1"}


@pytest.fixture(scope="session")
def mariadb() -> Iterator[PrivateMariaDB]:
    """Return the server of the suite: MariaDB, or MySQL if requested."""
    if not mysql.is_chosen():
        require_or_skip()
    with mysql.PrivateMySQL() if mysql.is_chosen() else PrivateMariaDB() as server:
        yield server


@pytest.fixture
def redis() -> Iterator[PrivateRedis]:
    """Return an empty Redis for each test, which the test may kill."""
    with PrivateRedis() as server:
        yield server


async def migrate(settings: Settings) -> None:
    engine = create_engines(settings).writer
    try:
        await schema.upgrade(engine)
    finally:
        await engine.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "empty.db"
    asyncio.run(migrate(Settings(database_url=f"sqlite+aiosqlite:///{file}")))
    return file


@pytest.fixture(scope="session")
def mariadb_url(mariadb: PrivateMariaDB) -> str:
    asyncio.run(migrate(Settings(database_url=mariadb.url)))
    return mariadb.url


SERVER_ID = "mysql" if mysql.is_chosen() else "mariadb"
MARIADB = pytest.param("mariadb", marks=pytest.mark.mariadb, id=SERVER_ID)
on_mariadb = pytest.mark.parametrize("database_url", [MARIADB], indirect=True)
"""Marks a test that needs a server: a wire, locks on rows, a statement that waits."""


def loading(database_url: str) -> list[str]:
    """Return the statement that loads generated values of new rows: MySQL has no INSERT … RETURNING."""
    return ["SELECT"] if mysql.is_chosen() and "mysql" in database_url else []


def only_on_mariadb(reason: str) -> pytest.MarkDecorator:
    """Mark a test of a feature that MySQL does not have, with the reason."""
    return pytest.mark.skipif(mysql.is_chosen(), reason=f"MariaDB only: {reason}")


def only_on_mysql(reason: str) -> pytest.MarkDecorator:
    """Mark a test of a feature that MariaDB does not have, with the reason."""
    return pytest.mark.skipif(not mysql.is_chosen(), reason=f"MySQL only: {reason}")


@pytest.fixture(params=["sqlite", MARIADB])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an empty, migrated database of each kind."""
    if request.param == "mariadb":
        return request.getfixturevalue("mariadb_url")
    file = tmp_path / "latchkey.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), file)
    return f"sqlite+aiosqlite:///{file}"


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, keyring=KEYRING, pool_size=2, pool_timeout_s=1.0)


class PoolErrors(logging.Handler):
    """The messages of the pool about connections that the garbage collector had to clean up."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "garbage collector" in record.getMessage():
            self.messages.append(record.getMessage())


@pytest.fixture
async def db(settings: Settings) -> AsyncIterator[SQLAlchemy]:
    """Yield the open database; the test must leave nothing behind."""

    def init() -> SQLAlchemy:
        database = SQLAlchemy()
        database.init_app(None, settings)
        return database

    async with opened(init, settings) as database:
        yield database


@asynccontextmanager
async def opened(make: Callable[[], Opened], settings: Settings) -> AsyncIterator[Opened]:
    """Yield the result of `make`, which opens the database, and check afterwards that nothing is left behind.

    The commands of both kinds of database are recorded, see `tests.wire`, and the tables are emptied at the end.
    """
    pool_errors = PoolErrors()
    logging.getLogger("sqlalchemy.pool").addHandler(pool_errors)
    watched = watched_connection()
    database = SQLAlchemy()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "Connection", wire.CountingConnection)
            patch.setattr(sqlite, "RollingBackConnection", watched)
            found = make()
            # Read before the first change, as a started service has: there is no webhook. A new one is noticed.
            listeners.note([], trusted_s=3600)
            if "sqlite" in settings.database_url:
                assert database._engines is not None
                wire.count_on_sqlite(database._engines.writer.sync_engine, patch)
            yield found
            if database.is_open:
                await assert_nothing_left(database)
    finally:
        await database.close()
        gc.collect(1)
        logging.getLogger("sqlalchemy.pool").removeHandler(pool_errors)
        if "mysql" in settings.database_url:
            await empty(settings)
    assert pool_errors.messages == []
    await assert_closed(watched)


def table_of(model: type[DeclarativeBase]) -> Table:
    """Return the table of a model, for statements that bypass its class."""
    table = model.__table__
    assert isinstance(table, Table)
    return table


@asynccontextmanager
async def tables_of(metadata: MetaData, database: SQLAlchemy) -> AsyncIterator[None]:
    """Create the tables of models that exist only for tests."""
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield
    async with database.engine.begin() as connection:
        if (
            connection.dialect.name == "mysql"
        ):  # a connection that a test has lost must fail it instead of blocking it
            await connection.execute(text("SET SESSION lock_wait_timeout = 5"))
        await connection.run_sync(metadata.drop_all)


async def assert_nothing_left(database: SQLAlchemy) -> None:
    """Assert that no session is registered and no connection is checked out (R6 and R7)."""
    registry = database.scoped_session.registry.registry
    for _ in range(20):  # the callbacks of tasks that have just ended
        if not registry and not database.checked_out():
            return
        await asyncio.sleep(0.005)
    assert list(registry) == []
    assert database.checked_out() == 0


async def empty(settings: Settings) -> None:
    """Delete all rows over a new connection, because the test may have closed the database."""
    url = make_url(settings.database_url)
    connection = await asyncmy.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        database=url.database,
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
    )
    try:
        async with connection.cursor() as cursor:
            # A row that the test has left locked must fail it instead of blocking it.
            deletes = [f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables)]
            await cursor.execute(
                "; ".join(["SET SESSION innodb_lock_wait_timeout = 5, sql_safe_updates = 0", *deletes])
            )
            while await cursor.nextset():
                pass
    finally:
        await connection.ensure_closed()
