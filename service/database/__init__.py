"""The database of this process: `db.init_app(app, settings)`, `db.scoped_session`, `db.close()`."""

import asyncio
import logging
from asyncio import current_task
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session

from latchkey.middleware import background
from latchkey.models import Base, Watched
from latchkey.models.watched import Watcher
from latchkey.service.database.engines import create_engines
from latchkey.service.database.replica import Replica
from latchkey.service.database.rules import Engines
from latchkey.service.database.session import RequestSession
from latchkey.service.outbox.listeners import listeners
from latchkey.service.settings import Settings

log = logging.getLogger("latchkey.database")

CLOSE_DEADLINE_S = 10.0  # how long `close` waits for requests that are still ending


class Singleton(type):
    """A metaclass: every call of the class returns the same object."""

    _instances: dict[type, Any] = {}  # noqa: RUF012 - shared on purpose

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the object, which the first call creates."""
        if cls not in Singleton._instances:
            Singleton._instances[cls] = super().__call__(*args, **kwargs)
        return Singleton._instances[cls]


class DatabaseNotOpenError(RuntimeError):
    """The database was used before `init_app` or after `close`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"db.{name}: the database is not open; call `db.init_app(app, settings)` first.")


class SessionMaker(partial[RequestSession]):
    """A function that opens sessions; a sessionmaker of SQLAlchemy would process each argument for each session."""

    def configure(self, **arguments: Any) -> None:
        """Change the arguments of the sessions that are opened from now on."""
        self.keywords.update(arguments)


class SQLAlchemy(metaclass=Singleton):
    """The database of this process. `init_app` opens it and `close` closes it; it can then be opened again.

    For code outside endpoints, which cannot leak a session either::

        async with db.scoped_session() as session:
            ...
            await session.commit()
    """

    def __init__(self) -> None:
        self._engines: Engines | None = None
        self._scoped_session: async_scoped_session[RequestSession] | None = None
        self._closings: set[asyncio.Task[None]] = set()
        self._app: Any = None

    def init_app(self, app: Any, settings: Settings) -> None:
        """Create engines and sessions from `settings`, and give the sessions to the models.

        `app` is the Starlette application, whose `state.db` is set to this object, or None outside one.
        No connection is opened yet.

        Raises:
            RuntimeError: the database is open already.
            SettingsError: the URL cannot be used.
        """
        if self._engines is not None:
            raise RuntimeError("the database is open already: call `await db.close()` first.")
        listeners.reset()
        engines = create_engines(settings)
        maker: Any = SessionMaker(
            RequestSession,
            autoflush=False,
            expire_on_commit=False,
            engines=engines,
            closings=self._closings,
        )
        scoped = async_scoped_session(maker, scopefunc=current_task)
        maker.keywords["registry"] = scoped.registry.registry
        self._engines = engines
        self._scoped_session = scoped
        Base.scoped_session = scoped
        self._app = app
        if app is not None:
            app.state.db = self

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher(table, id)` for each key and user whose change was committed, until `close`."""
        self._opened("watch")
        Watched.watcher = watcher

    @property
    def is_open(self) -> bool:
        """Return whether `init_app` has run and `close` has not."""
        return self._engines is not None

    @property
    def app(self) -> Any:
        """The application that the database was opened for; None outside one, and after `close`."""
        return self._app

    def _opened(self, name: str) -> Engines:
        if self._engines is None:
            raise DatabaseNotOpenError(name)
        return self._engines

    @property
    def engine(self) -> AsyncEngine:
        """Return the transactional engine: READ COMMITTED on MariaDB and MySQL, BEGIN IMMEDIATE on SQLite."""
        return self._opened("engine").writer

    @property
    def reader(self) -> AsyncEngine:
        """Return the AUTOCOMMIT engine on the same server."""
        return self._opened("reader").reader

    @property
    def replica(self) -> AsyncEngine | None:
        """Return the AUTOCOMMIT engine on `LATCHKEY_READER_URL`, or None."""
        return self._opened("replica").replica

    @property
    def replica_state(self) -> Replica | None:
        """Return the state of the replica, or None without one."""
        return self._opened("replica_state").replica_state

    @property
    def scoped_session(self) -> async_scoped_session[RequestSession]:
        """Return the sessions by task; the dict `scoped_session.registry.registry` is empty when nothing runs."""
        if self._scoped_session is None:
            raise DatabaseNotOpenError("scoped_session")
        return self._scoped_session

    @property
    def session(self) -> Callable[[], AsyncIterator[RequestSession]]:
        """Return the function that a framework injects: `Depends(db.session)`."""
        return self.get_db

    async def get_db(self) -> AsyncIterator[RequestSession]:
        """Yield the session of this task; the code that receives it commits.

        On an exception it rolls back to the end, even if cancelled, logs it, and raises it again.
        """
        async with self.scoped_session() as session:
            try:
                yield session
            except Exception as error:
                await session.rollback()
                log.warning("rolled back after %s", type(error).__name__)
                raise

    def checked_out(self) -> int:
        """Return the number of connections that are in use."""
        engines = self._opened("checked_out")
        return sum(engine.pool.checkedout() for engine in engines.all)  # type: ignore[attr-defined]  # QueuePool, always

    async def close(self) -> None:
        """Wait for background work and sessions that are still ending, for a bounded time; then dispose the engines (R12).

        A connection that is still checked out afterwards is logged as an error. If the database is not open, nothing
        happens.
        """
        if self._engines is None or self._scoped_session is None:
            return
        engines, scoped = self._engines, self._scoped_session
        await background.finish(CLOSE_DEADLINE_S)
        await scoped.remove()
        await self._wait_until_unused()
        if held := self.checked_out():
            tasks = [task.get_name() for task in scoped.registry.registry]
            log.error("closing with %d connections still checked out; sessions of %s", held, tasks)
        Base.scoped_session = None
        Watched.watcher = None
        self._engines = self._scoped_session = self._app = None
        for engine in engines.all:
            await engine.dispose()
        log.info("DB disconnected.")

    async def _wait_until_unused(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSE_DEADLINE_S
        registry = self.scoped_session.registry.registry
        while (  # noqa: ASYNC110 - no event is set when all connections of a pool are returned
            registry or self._closings or self.checked_out()
        ) and loop.time() < deadline:
            await asyncio.sleep(0.01)


db = SQLAlchemy()
