"""Statements that are compiled once and then sent to the driver directly, for the queries of every call."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Engine, Insert, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from latchkey.service.database.checkout import note_error
from latchkey.service.database.driver import reports_conflict
from latchkey.service.database.plan import MakeRowReader, Plan, RowValues, Statement, as_values
from latchkey.service.database.statements import is_plain_read
from latchkey.service.database.watched import watch_of
from latchkey.service.database.wide_integers import refusal_of

ATTEMPTS = 4  # the first run and at most three more after conflicts

R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

Ask = Callable[[Any, str, RowValues], Awaitable[tuple[Sequence[RowValues], Any]]]
"""Sends a statement on a connection of the driver, and returns its rows and their description."""


class Prepared(Generic[T_co]):
    """A SELECT with `bindparam`s for its values, or an INSERT of one row, optionally with RETURNING.

    It bypasses the work that SQLAlchemy repeats for each execution: the cache key, the context, the metadata of the
    result. In an authenticated call that took half of the time. It still uses SQLAlchemy's pool, types, SQL for each
    dialect, and errors.

    In a list of values (`IN`) the last value is repeated up to a power of two.

    Args:
        statement: the statement to send.
        make: makes the reader of rows; `as_values` reads tuples.
        cache_key: SQLAlchemy's cache key of a statement; its extracted values are then given by their position.
    """

    @overload
    def __init__(self: "Prepared[RowValues]", statement: Statement) -> None: ...
    @overload
    def __init__(self, statement: Statement, make: MakeRowReader[T_co], *, cache_key: Any = None) -> None: ...
    def __init__(
        self, statement: Statement, make: MakeRowReader[Any] = as_values, *, cache_key: Any = None
    ) -> None:
        self.statement = statement
        self.is_plain_read = is_plain_read(statement)
        self._make = make
        self._cache_key = cache_key
        self._plans: WeakKeyDictionary[Dialect, Plan[T_co]] = WeakKeyDictionary()

    async def run(
        self, engine: AsyncEngine, values: Mapping[Any, Any], *, ask: Ask | None = None
    ) -> list[T_co]:
        """Return the rows, using a pooled connection of an engine in AUTOCOMMIT mode.

        A SELECT whose pooled connection turns out to be dead is run once more. A statement that lost a conflict is run again,
        at most three times, since none of it took effect.

        Args:
            engine: in AUTOCOMMIT mode.
            values: of the parameters.
            ask: sends the statement on a connection of the driver; None sends it at once.

        Raises:
            DBAPIError: as `run_once`.
        """
        for attempt in range(ATTEMPTS):
            try:
                return await self.run_once(engine, values, ask=ask)
            except DBAPIError as error:
                lost = error.connection_invalidated and not isinstance(self.statement, Insert) and not attempt
                conflict = reports_conflict(error.orig) and attempt + 1 < ATTEMPTS
                if not lost and not conflict:
                    raise
        raise AssertionError  # the last attempt returned or raised

    async def run_once(
        self, engine: AsyncEngine, values: Mapping[Any, Any], *, ask: Ask | None = None
    ) -> list[T_co]:
        """Return the rows.

        Raises:
            DBAPIError: as an execution does, with `connection_invalidated` when the connection is lost. In that case, and
                when the call is cancelled, the connection is not used again.
        """
        plan = self.plan_for(engine.dialect)
        sql, given = plan.bind(values)
        rows, description = await send(engine, ask or fetch, sql, given)
        return plan.read(rows, description)

    async def insert_together(self, engine: AsyncEngine, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert several rows with one statement: all of them, or none if one of them cannot be inserted.

        For an engine in AUTOCOMMIT mode on MariaDB or MySQL. SQLite's driver would insert the rows before the failing one.

        Raises:
            DBAPIError: as `run_once`.
        """
        plan = self.plan_for(engine.dialect)
        await send(engine, insert_many, plan.sql, [plan.bind(values)[1] for values in rows])

    def plan_for(self, dialect: Dialect) -> Plan[T_co]:
        """Return the plan for a dialect, which is compiled once."""
        plan = self._plans.get(dialect)
        if plan is None:
            plan = self._plans[dialect] = Plan(self.statement, dialect, self._make, cache_key=self._cache_key)
        return plan


async def take(engine: Engine) -> PoolProxiedConnection:
    """Return a connection from the pool.

    An idle connection is returned at once. For any other, SQLAlchemy must wait in a greenlet, and creating a greenlet
    takes as long as the driver needs for a query.
    """
    if engine.pool.checkedin():  # type: ignore[attr-defined]  # QueuePool, always
        with contextlib.suppress(MissingGreenlet):  # it was idle for too long, or dead, and must be reopened
            return engine.raw_connection()
    return await greenlet_spawn(engine.raw_connection)


async def send(engine: AsyncEngine, ask: Callable[[Any, str, Any], Awaitable[R]], sql: str, given: Any) -> R:
    """Send a statement on a connection of the pool, with the errors and effects of an ordinary execution."""
    dialect = engine.dialect
    pool = engine.sync_engine.pool
    errors = dialect.loaded_dbapi.Error
    pooled: PoolProxiedConnection | None = None
    lost = False
    try:
        pooled = await take(engine.sync_engine)
        if (watch := watch_of(engine.sync_engine)) is not None:
            with watch(dialect.name, sql):
                return await ask(pooled.driver_connection, sql, given)
        return await ask(pooled.driver_connection, sql, given)
    except errors as error:
        note_error(engine.sync_engine, error)
        if pooled is not None and dialect.is_disconnect(error, pooled.dbapi_connection, None):
            lost = True
            # As after any execution: other connections of the same age are reopened when they are taken.
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
        if (refusal := refusal_of(error, given)) is not None:
            raise refusal from error
        raise
    finally:
        if pooled is not None:
            pooled.close()


async def fetch(driver: Any, sql: str, given: RowValues) -> tuple[Sequence[RowValues], Any]:
    """Execute a statement, and return its rows and their description; asyncmy and aiosqlite share this interface."""
    async with driver.cursor() as cursor:
        await cursor.execute(sql, given)
        return await cursor.fetchall(), cursor.description


async def insert_many(driver: Any, sql: str, given: Sequence[RowValues]) -> None:
    """Insert rows with asyncmy: in bulk on MariaDB, as one INSERT with many VALUES on MySQL."""
    async with driver.cursor() as cursor:
        await cursor.executemany(sql, given)
