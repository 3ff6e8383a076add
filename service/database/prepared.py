"""A statement that is compiled once and then sent as it is: for what every call asks."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload
from weakref import WeakKeyDictionary

from sqlalchemy import Dialect, Engine, Insert, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from latchkey.service.database.driver import is_conflict
from latchkey.service.database.plan import Make, Plan, Statement, Values, as_values
from latchkey.service.database.statements import is_plain_read

ATTEMPTS = 4  # the first run and at most three more after conflicts

R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class Prepared(Generic[T_co]):
    """A SELECT, with `bindparam`s where its values go, or an INSERT of one row, perhaps RETURNING.

    It goes to the driver past what SQLAlchemy does for each execution, whatever that is of: the cache key, the
    context, the metadata of the result. Of an authenticated call that was half of the time. What stays is what
    SQLAlchemy stands for: its pool, its types, its SQL for each dialect, and its errors.

    A list of values (`IN`) is sent with its last value repeated until there is a power of two of them.

    Args:
        statement: what is asked.
        make: how rows are read; `as_values` reads tuples.
        cache_key: SQLAlchemy's of a statement; the values that it has extracted are then given by their position.
    """

    @overload
    def __init__(self: "Prepared[Values]", statement: Statement) -> None: ...
    @overload
    def __init__(self, statement: Statement, make: Make[T_co], *, cache_key: Any = None) -> None: ...
    def __init__(self, statement: Statement, make: Make[Any] = as_values, *, cache_key: Any = None) -> None:
        self.statement = statement
        self.is_plain_read = is_plain_read(statement)
        self._make = make
        self._cache_key = cache_key
        self._plans: WeakKeyDictionary[Dialect, Plan[T_co]] = WeakKeyDictionary()

    async def run(self, engine: AsyncEngine, values: Mapping[Any, Any]) -> list[T_co]:
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

    async def run_once(self, engine: AsyncEngine, values: Mapping[Any, Any]) -> list[T_co]:
        """Return the rows.

        Raises:
            DBAPIError: as an execution does, with `connection_invalidated` when the connection is lost; then, and
                when it is cancelled, the connection is not used again.
        """
        plan = self.plan_for(engine.dialect)
        sql, given = plan.bind(values)
        rows, description = await send(engine, fetch, sql, given)
        return plan.read(rows, description)

    async def insert_together(self, engine: AsyncEngine, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert several rows with one statement: all of them, or none when one of them cannot be.

        For an engine in AUTOCOMMIT mode on MariaDB or MySQL. SQLite's driver would insert those before the wrong one.

        Raises:
            DBAPIError: as `run_once`.
        """
        plan = self.plan_for(engine.dialect)
        await send(engine, insert_many, plan.sql, [plan.bind(values)[1] for values in rows])

    def plan_for(self, dialect: Dialect) -> Plan[T_co]:
        """Compile it, once for each dialect."""
        plan = self._plans.get(dialect)
        if plan is None:
            plan = self._plans[dialect] = Plan(self.statement, dialect, self._make, cache_key=self._cache_key)
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


async def fetch(driver: Any, sql: str, given: Values) -> tuple[Sequence[Values], Any]:
    """Ask the driver, and return the rows and what they are; both of them speak alike, asyncmy and aiosqlite."""
    async with driver.cursor() as cursor:
        await cursor.execute(sql, given)
        return await cursor.fetchall(), cursor.description


async def insert_many(driver: Any, sql: str, given: Sequence[Values]) -> None:
    """Have asyncmy insert rows: in bulk on MariaDB, as one INSERT with many VALUES on MySQL."""
    async with driver.cursor() as cursor:
        await cursor.executemany(sql, given)
