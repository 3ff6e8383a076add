"""The errors of database sessions.

    SessionError
    ├── a session that may not be used here
    │   ├── EndedSessionError        after its end
    │   ├── SettledSessionError      that of the request, after the response has started
    │   ├── EndedRequestError        in a task whose request has ended
    │   ├── OtherTaskError           in a task that does not own it
    │   └── ForeignBindError         for an engine of another database
    ├── a write that may not happen, or that would be lost
    │   ├── ChildWriteError          in a child task, while the request has a write open
    │   ├── OpenWriteError           open while the request waits for its client
    │   ├── UnwrittenWorkError       not committed when its session ended
    │   └── CommitForbiddenError     committed by the endpoint of an idempotent route
    ├── a transaction that failed
    │   ├── TransactionEndedError    the server ended it
    │   ├── BrokenTransactionError   it cannot be committed any more; a PendingRollbackError of SQLAlchemy too
    │   └── CommitUnknownError       the connection was lost during COMMIT
    └── a stream of rows that is cut
        ├── StreamClosedError        its connection was released before its last row
        └── StreamTimeoutError       its client was too slow

All of them are RuntimeErrors. Errors of a model or one of its verbs are in `latchkey.models.errors`.
"""

import asyncio
from typing import Any

from sqlalchemy.exc import PendingRollbackError


class SessionError(RuntimeError):
    """The base of all errors of database sessions."""


class EndedSessionError(SessionError):
    """A session was used after its end; it would take a connection that is never returned."""

    def __init__(self) -> None:
        super().__init__(
            "this session has ended: open another one, `async with db.scoped_session() as session`; "
            "an instance that was bound to it can be used again after `instance.set_session()`."
        )


class SettledSessionError(SessionError):
    """`request.state.session` was used after the response had started."""

    def __init__(self) -> None:
        super().__init__(
            "request.state.session was settled when the response started: "
            "a streamed body or background work must open its own session, "
            "`async with db.scoped_session() as session`, and commit its changes."
        )


class EndedRequestError(SessionError):
    """A task used the database after the request that started it had ended."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        super().__init__(
            f"the request that started the task {task.get_name()!r} has ended, and a task that uses the database ends "
            "with its request: start work that continues afterwards with `latchkey.background(…)`."
        )


class OtherTaskError(SessionError):
    """A session was used by a task that does not own it; two tasks would use one connection at once."""

    def __init__(self, owner: "asyncio.Task[Any]", other: "asyncio.Task[Any]") -> None:
        super().__init__(
            f"the task {other.get_name()!r} uses the session of the task {owner.get_name()!r}, and only the owner may use a "
            "session: call the verbs of the models in the other task, or open a block there, "
            "`async with db.scoped_session() as session`. `asyncio.gather` starts a task for each coroutine; "
            "before Python 3.12 so does `asyncio.wait_for`, but not `async with asyncio.timeout(…)`."
        )


class ForeignBindError(SessionError):
    """A model or a statement is bound to an engine that does not belong to the database."""

    def __init__(self) -> None:
        super().__init__(
            "a session of this database uses only its own engines, so that one COMMIT covers all its writes: "
            "for another engine or connection open a session of its own, `async with AsyncSession(engine) as other`."
        )


class ChildWriteError(SessionError):
    """A child task wants to write while its request has a write open; the two would wait for each other."""


class OpenWriteError(SessionError):
    """The request waits for its client while one of its writes is open."""

    def __init__(self) -> None:
        super().__init__(
            "the request waits for a part of the body, or sends one, while a write is open; a slow client would hold the "
            "connection: read the body first, or commit before the next part. "
            "Open a stream of rows after the commit, because the commit would end it."
        )


class UnwrittenWorkError(SessionError):
    """A session ended with uncommitted changes, which would have been lost silently."""


class CommitForbiddenError(SessionError):
    """The endpoint of an idempotent route commits; its change could be durable without the response to replay."""

    def __init__(self) -> None:
        super().__init__(
            "the endpoint of a route with idempotent=True must leave COMMIT to the adapter: "
            "use neither auto_commit=True nor commit()."
        )


class TransactionEndedError(SessionError):
    """The server ended a transaction with writes or locks; continuing would commit only a part of the work."""

    def __init__(self) -> None:
        super().__init__("the server ended the transaction, so nothing of it was committed: run it again")


class BrokenTransactionError(PendingRollbackError, SessionError):
    """A session was used after its transaction had broken, which undid its writes."""

    def __init__(self) -> None:
        super().__init__(
            "the transaction of this session is broken and cannot be committed: a statement was interrupted "
            "by a timeout or a lost connection, or a flush failed. Call `await session.rollback()` and repeat all of "
            "the work, or let the first error propagate."
        )


class CommitUnknownError(SessionError):
    """The connection was lost after COMMIT was sent; the change may or may not be durable."""


class StreamClosedError(SessionError):
    """A stream was read after its connection had been released; the rows so far are incomplete."""

    def __init__(self) -> None:
        super().__init__(
            "this stream of rows was closed before its last row was read, by a commit, a rollback, the end of its "
            "session or, on MariaDB and MySQL, another statement of the session. Read the rows first, "
            "or open the stream in its own block, `async with db.scoped_session() as session`."
        )


class StreamTimeoutError(SessionError):
    """The client was too slow to receive a response whose rows are read from an open connection."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"the response was cut: sending took {timeout_s:g} s in total while a stream of rows held a "
            "connection. The limit is LATCHKEY_STREAM_TIMEOUT_S."
        )
