"""The whole application on an open database, and keys to call it with."""

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing

import pytest
from starlette.applications import Starlette

from latchkey.service import logs
from latchkey.service.app import create_app
from latchkey.service.operation import Operation
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import opened
from tests.mariadb import PrivateMariaDB


@pytest.fixture
def routes() -> Sequence[Operation]:
    """A team's own routes; a module that has some overrides this."""
    return ()


@pytest.fixture
def loggers() -> Iterator[None]:
    """Give the loggers back as they were: `create_app` configures them for the whole process."""
    found = [logging.getLogger(name) for name in (*logs.LEVELS, "uvicorn.access")]
    before = [(one, one.level, one.handlers, one.propagate) for one in found]
    yield
    for one, level, handlers, propagate in before:
        one.setLevel(level)
        one.handlers, one.propagate = handlers, propagate


class Lines(logging.Handler):
    """Every log record that reaches it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def log_lines(app: Starlette) -> Iterator[list[logging.LogRecord]]:
    """Every record of every logger from DEBUG on; not only of those that the application shows."""
    lines = Lines()
    heard = [logging.getLogger(), *(logging.getLogger(name) for name in logs.LEVELS)]
    before = [(one, one.level, one.handlers) for one in heard]
    for one in heard:
        one.handlers = [*one.handlers, lines]
        one.setLevel(logging.DEBUG)
    yield lines.records
    for one, level, handlers in before:
        one.handlers = handlers
        one.setLevel(level)


@pytest.fixture
async def app(settings: Settings, routes: Sequence[Operation], loggers: None) -> AsyncIterator[Starlette]:
    """The application; after the test nothing may be left of what it did."""
    async with opened(lambda: create_app(settings, routes=routes), settings) as app:
        yield app


@pytest.fixture
async def operator(app: Starlette) -> HeldKey:
    """A bearer key with every scope."""
    return await hold_key(app)


@pytest.fixture
async def signer(app: Starlette) -> HeldKey:
    """A key of the same owner that signs, with every scope."""
    return await hold_key(app, mode="signed")


@pytest.fixture
def open_transactions(settings: Settings, request: pytest.FixtureRequest) -> Callable[[], Awaitable[int]]:
    """Count the transactions that are open on the database, whoever holds them."""
    if "mysql" in settings.database_url:
        server: PrivateMariaDB = request.getfixturevalue("mariadb")
        return server.open_transactions

    async def count() -> int:
        """SQLite has one writer at a time: whoever cannot begin at once finds one."""
        with closing(sqlite3.connect(settings.database_url.partition("///")[2], timeout=0)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return 1
        return 0

    return count
