"""A statement that is compiled once and then sent as it is: for what every call asks."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import Dialect, Engine, Insert, PoolProxiedConnection, Select
from sqlalchemy.exc import DBAPIError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from latchkey.service.database.driver import is_conflict
from latchkey.service.database.single_precision import processor_of

Convert = Callable[[Any], Any]
Values = tuple[Any, ...]
ATTEMPTS = 4  # the first run and at most three more after conflicts

R = TypeVar("R")


class Plan(msgspec.Struct, frozen=True):
    """What one dialect makes of the statement."""

    sql: str
    parameters: tuple[tuple[str, Convert | None], ...]
    """Each placeholder's name, in their order, and what the driver wants made of its value."""
    columns: tuple[tuple[int, Convert], ...]
    """The columns whose values the driver does not give as they are meant."""

    def give(self, values: Mapping[str, Any]) -> Values:
        """Put values in the order of the placeholders, as the driver wants them."""
        return tuple(
            values[name] if convert is None else convert(values[name]) for name, convert in self.parameters
        )

    def read(self, row: Sequence[Any]) -> Values:
        """Make of the driver's row what is meant."""
        values = list(row)
        for place, convert in self.columns:
            values[place] = convert(values[place])
        return tuple(values)


class Prepared:
    """A SELECT of a table's columns, with `bindparam`s where its values go, or an INSERT of one row, perhaps RETURNING.

    It goes to the driver past what SQLAlchemy does for each execution, whatever that is of: the cache key, the
    context, the metadata of the result. Of an authenticated call that was half of the time. What stays is what
    SQLAlchemy stands for: its pool, its types, its SQL for each dialect, and its errors.

    Not for lists of values (`IN`), whose SQL depends on how many there are.
    """

    def __init__(self, statement: Select[Any] | Insert) -> None:
        self.statement = statement
        self._plans: WeakKeyDictionary[Dialect, Plan] = WeakKeyDictionary()

    async def run(self, engine: AsyncEngine, values: Mapping[str, Any]) -> list[Values]:
        """Return the rows, by a pooled connection of an engine in AUTOCOMMIT mode.

        A SELECT whose pooled connection turns out dead is run once more. A statement that lost a conflict is run again,
        at most three times, since nothing of it was done.

        Raises:
            DBAPIError: as `run_once`.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await self.run_once(engine, values)
            except DBAPIError as error:
                lost = error.connection_invalidated and not isinstance(self.statement, Insert) and not attempt
                conflict = is_conflict(error.orig) and attempt + 1 < ATTEMPTS
                if not lost and not conflict:
                    raise
        raise AssertionError  # the last attempt returned or raised

    async def run_once(self, engine: AsyncEngine, values: Mapping[str, Any]) -> list[Values]:
        """Return the rows.

        Raises:
            DBAPIError: as an execution does, with `connection_invalidated` when the connection is lost; then, and
                when it is cancelled, the connection is not used again.
        """
        plan = self.plan_for(engine.dialect)
        return [plan.read(row) for row in await send(engine, fetch, plan.sql, plan.give(values))]

    async def insert_together(self, engine: AsyncEngine, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert several rows with one statement: all of them, or none when one of them cannot be.

        For an engine in AUTOCOMMIT mode on MariaDB or MySQL. SQLite's driver would insert those before the wrong one.

        Raises:
            DBAPIError: as `run_once`.
        """
        plan = self.plan_for(engine.dialect)
        await send(engine, insert_many, plan.sql, [plan.give(values) for values in rows])

    def plan_for(self, dialect: Dialect) -> Plan:
        """Compile it, once for each dialect."""
        plan = self._plans.get(dialect)
        if plan is not None:
            return plan
        compiled = self.statement.compile(dialect=dialect)
        columns = (processor_of(column.type, dialect) for column in self.statement.exported_columns)
        plan = self._plans[dialect] = Plan(
            sql=str(compiled),
            parameters=tuple(
                (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
                for name in compiled.positiontup or ()
            ),
            columns=tuple((place, convert) for place, convert in enumerate(columns) if convert is not None),
        )
        return plan


async def take(engine: Engine) -> PoolProxiedConnection:
    """Take a connection out of the pool.

    One that is idle there is taken at once. SQLAlchemy waits in a greenlet, for another or for a new one, and to make
    a greenlet costs as much time as the driver needs to ask.
    """
    if engine.pool.checkedin():  # type: ignore[attr-defined]  # QueuePool, always
        with contextlib.suppress(
            MissingGreenlet
        ):  # it was idle for too long, or dead, and has to be made anew
            return engine.raw_connection()
    return await greenlet_spawn(engine.raw_connection)


async def send(engine: AsyncEngine, ask: Callable[[Any, str, Any], Awaitable[R]], sql: str, given: Any) -> R:
    """Ask on a connection of the pool, with the errors and the consequences that an execution has."""
    dialect = engine.dialect
    pool = engine.sync_engine.pool
    errors = dialect.loaded_dbapi.Error
    pooled: PoolProxiedConnection | None = None
    lost = False
    try:
        pooled = await take(engine.sync_engine)
        return await ask(pooled.driver_connection, sql, given)
    except errors as error:
        if pooled is not None and dialect.is_disconnect(error, pooled.dbapi_connection, None):
            lost = True
            # As after any execution: the others that are as old are made anew when they are taken.
            await greenlet_spawn(pool._invalidate, pooled, error)  # noqa: SLF001 - there is no public way
        raise DBAPIError.instance(
            sql,
            given,
            error,
            errors,
            hide_parameters=engine.sync_engine.hide_parameters,
            connection_invalidated=lost,
            dialect=dialect,
        ) from error
    except BaseException as error:
        if pooled is not None:
            await greenlet_spawn(pooled.invalidate, error)
        raise
    finally:
        if pooled is not None:
            pooled.close()


async def fetch(driver: Any, sql: str, given: Values) -> Sequence[Values]:
    """Ask the driver; both of them speak alike, asyncmy and aiosqlite."""
    async with driver.cursor() as cursor:
        await cursor.execute(sql, given)
        rows: Sequence[Values] = await cursor.fetchall()
        return rows


async def insert_many(driver: Any, sql: str, given: Sequence[Values]) -> None:
    """Have asyncmy insert rows: in bulk on MariaDB, as one INSERT with many VALUES on MySQL."""
    async with driver.cursor() as cursor:
        await cursor.executemany(sql, given)
