"""What a session may do, which engines it has, and the errors by which it refuses (R6, R8)."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine


class Engines(msgspec.Struct, frozen=True):
    """The engines that a session chooses from: `reader` and `writer` are the primary, `replica` lags."""

    writer: AsyncEngine
    reader: AsyncEngine
    replica: AsyncEngine | None = None

    @property
    def all(self) -> list[AsyncEngine]:
        """Those that there are."""
        return [one for one in (self.writer, self.reader, self.replica) if one is not None]

    def include(self, bind: object) -> bool:
        """Return whether `bind` is one of them."""
        return any(one.sync_engine is bind for one in self.all)


class CommitForbiddenError(RuntimeError):
    """The endpoint of an idempotent route commits: what it wrote could be there without the answer to replay."""

    def __init__(self) -> None:
        super().__init__(
            "the endpoint of a route with idempotent=True leaves COMMIT to the adapter: "
            "no auto_commit=True and no commit of its own."
        )


class Rules:
    """What a session may do: told to it from outside, also before it does anything."""

    __slots__ = (
        "before_write",
        "commit_forbidden",
        "engines",
        "reads_from",
        "refusal",
        "task",
        "transactional",
    )

    def __init__(self, engines: Engines, task: "asyncio.Task[Any]") -> None:
        self.engines = engines
        self.task = task  # the only one that may use the session
        self.reads_from = engines.reader
        self.transactional = False  # every statement on the writer: the endpoint of an unsafe method
        self.before_write: Callable[[], None] | None = None
        self.refusal: type[RuntimeError] | None = None  # why the session takes no more statements
        self.commit_forbidden = False  # nobody may commit now


class EndedSessionError(RuntimeError):
    """A session was used after it had ended; it would take a connection that nobody gives back."""

    def __init__(self) -> None:
        super().__init__(
            "this session has ended: open another one, `async with db.scoped_session() as session`; "
            "an instance that it served works on its own again after `instance.set_session()`."
        )


class ForeignBindError(RuntimeError):
    """A model or a statement is bound to an engine that is none of the database's."""

    def __init__(self) -> None:
        super().__init__(
            "a session of this database uses its engines only, so that one COMMIT keeps all that it wrote: "
            "for another engine or connection open a session of its own, `async with AsyncSession(engine) as other`."
        )


class BrokenTransactionError(PendingRollbackError):
    """A session was used on after its transaction had broken under it, which undid what it had written."""

    def __init__(self) -> None:
        super().__init__(
            "the transaction of this session is broken, and nothing of it can be committed: a statement of it was cut "
            "off, by a time-out or a lost connection, or a flush failed. `await session.rollback()`, and do all of "
            "the work again; or let the first error go on."
        )
