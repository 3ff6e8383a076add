"""The rows of a test database: it must be empty at first, is emptied after each test, and is empty again at the end."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import KeyringCanary
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines, name_of
from latchkey.service.database.schema import Schema
from latchkey.service.settings import Settings


class NotEmptyError(RuntimeError):
    """A database has tables, so its rows may be needed; the tests would delete them."""

    def __init__(self, database: str) -> None:
        super().__init__(
            f"the database {database} has tables, and the tests delete everything in it: name an empty one."
        )


class Rows(msgspec.Struct, frozen=True):
    """The rows that the migrations have inserted into a table."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


async def prepare(url: URL, schemas: Iterable[Schema]) -> None:
    """Migrate an empty database.

    Raises:
        NotEmptyError: it has a table.
    """
    async with engine_of(url) as engine:
        async with engine.connect() as connection:
            if await connection.run_sync(names_of_tables):
                raise NotEmptyError(name_of(url))
        await schema.upgrade(engine, schemas=schemas)


async def drop_tables(url: URL) -> None:
    """Drop all tables of a database."""

    def drop(connection: Connection) -> None:
        quoted = connection.dialect.identifier_preparer.quote_identifier
        with without_foreign_keys(connection):
            connection.exec_driver_sql("SET SESSION lock_wait_timeout = 10")
            connection.exec_driver_sql(f"DROP TABLE {', '.join(map(quoted, names_of_tables(connection)))}")

    async with engine_of(url) as engine, engine.begin() as connection:
        await connection.run_sync(drop)


@asynccontextmanager
async def engine_of(url: URL) -> AsyncIterator[AsyncEngine]:
    """Yield an engine of its own, because connections belong to the event loop that has opened them."""
    engine = create_engines(Settings(database_url=url.render_as_string(hide_password=False))).writer
    try:
        yield engine
    finally:
        await engine.dispose()


def names_of_tables(connection: Connection) -> list[str]:
    """Return the names of all tables."""
    return inspect(connection).get_table_names()


@contextmanager
def without_foreign_keys(connection: Connection) -> Iterator[None]:
    """Let rows and tables be deleted in any order; at the end no row may refer to one that is missing."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # until COMMIT
        yield
        return
    connection.exec_driver_sql("SET SESSION foreign_key_checks = 0")
    try:
        yield
    finally:
        connection.exec_driver_sql("SET SESSION foreign_key_checks = 1")


class Contents:
    """The tables of a migrated database, and the rows that the migrations have inserted.

    Args:
        engine: the transactional one of the database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._tables: list[str] = []
        self._kept: list[Rows] = []

    async def read(self) -> None:
        """Remember the tables and their rows."""
        async with self._engine.connect() as connection:
            names = await connection.run_sync(names_of_tables)
            self._tables = [
                name
                for name in names
                if name != KeyringCanary.__tablename__ and not name.startswith("alembic_version")
            ]
            for name in await connection.run_sync(self._filled):
                found = await connection.execute(text(f"SELECT * FROM {self._quoted(name)}"))  # noqa: S608 - a name
                self._kept.append(Rows(name, tuple(found.keys()), [tuple(row) for row in found]))

    async def restore(self) -> None:
        """Delete all rows but those that the migrations have inserted."""
        async with self._engine.begin() as connection:
            await connection.run_sync(self._restore)

    def _restore(self, connection: Connection) -> None:
        filled = self._filled(connection)
        if not filled and not self._kept:
            return
        with without_foreign_keys(connection):
            for name in filled:
                connection.exec_driver_sql(f"DELETE FROM {self._quoted(name)}")  # noqa: S608 - a name
            for one in self._kept:
                columns = ", ".join(map(self._quoted, one.columns))
                values = ", ".join(f":v{place}" for place in range(len(one.columns)))
                connection.execute(
                    text(f"INSERT INTO {self._quoted(one.table)} ({columns}) VALUES ({values})"),  # noqa: S608 - names
                    [{f"v{place}": value for place, value in enumerate(row)} for row in one.rows],
                )

    def _filled(self, connection: Connection) -> list[str]:
        """Return the names of the tables that have a row, with one statement."""
        looks = [
            f"SELECT {place} FROM (SELECT 1) AS o WHERE EXISTS (SELECT 1 FROM {self._quoted(name)})"  # noqa: S608 - a name
            for place, name in enumerate(self._tables)
        ]
        found = connection.exec_driver_sql(" UNION ALL ".join(looks))
        return [self._tables[place] for (place,) in found]

    def _quoted(self, name: str) -> str:
        return self._engine.dialect.identifier_preparer.quote_identifier(name)
