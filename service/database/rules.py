"""The rules of a session: what it may do, which engines it uses, and the errors that refuse the rest (R6, R8)."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine


class Engines(msgspec.Struct, frozen=True):
    """The engines of a session: `reader` and `writer` are on the primary, `replica` may be behind."""

    writer: AsyncEngine
    reader: AsyncEngine
    replica: AsyncEngine | None = None

    @property
    def all(self) -> list[AsyncEngine]:
        """Return the engines that exist."""
        return [one for one in (self.writer, self.reader, self.replica) if one is not None]

    def include(self, bind: object) -> bool:
        """Return whether `bind` is one of these engines."""
        return any(one.sync_engine is bind for one in self.all)


class CommitForbiddenError(RuntimeError):
    """The endpoint of an idempotent route commits; its change could be durable without the answer to replay."""

    def __init__(self) -> None:
        super().__init__(
            "the endpoint of a route with idempotent=True must leave COMMIT to the adapter: "
            "use neither auto_commit=True nor commit()."
        )


class Rules:
    """The rules of a session, set from outside, even before the session does anything."""

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
        self.task = task  # the only task that may use the session
        self.reads_from = engines.reader
        self.transactional = (
            False  # True sends every statement to the writer: for the endpoint of an unsafe method
        )
        self.before_write: Callable[[], None] | None = None
        self.refusal: type[RuntimeError] | None = None  # the error that refuses all further statements
        self.commit_forbidden = False  # True refuses every commit


class EndedSessionError(RuntimeError):
    """A session was used after its end; it would take a connection that is never returned."""

    def __init__(self) -> None:
        super().__init__(
            "this session has ended: open another one, `async with db.scoped_session() as session`; "
            "an instance that was bound to it can be used again after `instance.set_session()`."
        )


class ForeignBindError(RuntimeError):
    """A model or a statement is bound to an engine that does not belong to the database."""

    def __init__(self) -> None:
        super().__init__(
            "a session of this database uses only its own engines, so that one COMMIT covers all its writes: "
            "for another engine or connection open a session of its own, `async with AsyncSession(engine) as other`."
        )


class BrokenTransactionError(PendingRollbackError):
    """A session was used after its transaction had broken, which undid its writes."""

    def __init__(self) -> None:
        super().__init__(
            "the transaction of this session is broken and cannot be committed: a statement was interrupted "
            "by a timeout or a lost connection, or a flush failed. Call `await session.rollback()` and repeat all of "
            "the work, or let the first error propagate."
        )
