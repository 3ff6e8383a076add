"""Watch the statements of engines, whether SQLAlchemy executes them or they go to the driver directly."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

Watch = Callable[[str, str], AbstractContextManager[None]]
"""Surrounds the execution of one statement; its arguments are the name of the dialect and the SQL, without values."""

_OPTION = "latchkey_watch"


def watch_of(engine: Engine) -> Watch | None:
    """Return the watch of an engine, for statements that go to the driver directly; None without one."""
    found: Watch | None = engine.get_execution_options().get(_OPTION)
    return found


def watch_statements(engines: Iterable[AsyncEngine | None], *watches: Watch) -> None:
    """Surround each statement of these engines. Waiting for a connection, BEGIN and COMMIT are not watched.

    Without a watch, nothing is added to the engines.
    """
    if not watches:
        return

    @contextmanager
    def watch(dialect: str, sql: str) -> Iterator[None]:
        with ExitStack() as stack:
            for one in watches:
                stack.enter_context(one(dialect, sql))
            yield

    def begin(*, conn: Connection, statement: str, context: Any, **_: Any) -> None:
        context.watched = watch(conn.dialect.name, statement)
        context.watched.__enter__()

    def end(*, context: Any, **_: Any) -> None:
        leave(context, None)

    def fail(*, exception_context: ExceptionContext) -> None:
        leave(exception_context.execution_context, exception_context.original_exception)

    for engine in engines:
        if engine is not None:
            engine.sync_engine.update_execution_options(**{_OPTION: watch})
            event.listen(engine.sync_engine, "before_cursor_execute", begin, named=True)
            event.listen(engine.sync_engine, "after_cursor_execute", end, named=True)
            event.listen(engine.sync_engine, "handle_error", fail, named=True)


def leave(context: Any, error: BaseException | None) -> None:
    """End the watch of an execution, if it has begun and not ended."""
    watched: AbstractContextManager[None] | None = getattr(context, "watched", None)
    if watched is not None:
        context.watched = None
        watched.__exit__(type(error) if error else None, error, None)
