"""The request scope: what one HTTP request does with the database, child tasks included (R7)."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Protocol, Self

from latchkey.middleware.completion import is_helper

log = logging.getLogger("latchkey.session")

CHILD_DEADLINE_S = 10.0  # how long a cancelled child may take to end before the request stops waiting for it


class ManagedSession(Protocol):
    """What a request scope needs of a session; `latchkey.service.database.session.RequestSession` is one."""

    @property
    def idle(self) -> bool:
        """Nothing is pending and no transaction is open."""

    @property
    def on_writer(self) -> bool:
        """The session holds a connection of the writing engine."""

    @property
    def unwritten(self) -> str | None:
        """The changes that nothing has committed yet, in words, or None."""

    @property
    def is_streaming(self) -> bool:
        """Rows of a stream were not read yet, so that the session keeps its connection."""

    async def settle(self, *, is_streamed: bool = False) -> None:
        """Commit what is left; with `is_streamed` the body reads on in the streams that are open."""

    async def rollback(self) -> None: ...
    async def end(self) -> None:
        """Close the session and leave every register that knows it; any number of times."""

    async def release_connection(self, *, ends_streams: bool = False) -> None:
        """Hold no connection, but for a stream of rows unless `ends_streams` is said."""

    def refuse_further_use(self) -> None:
        """Refuse further use: the request's answer has started."""


class UnwrittenWorkError(RuntimeError):
    """A session ended with changes that nothing committed: they would have been lost in silence."""


class SettledSessionError(RuntimeError):
    """`request.state.session` was used after the answer had started."""

    def __init__(self) -> None:
        super().__init__(
            "request.state.session was settled when the answer started: "
            "a streamed body or background work opens a session of its own, "
            "`async with db.scoped_session() as session`, and commits what it writes."
        )


class OpenWriteError(RuntimeError):
    """The request waits for its body while a write of it is open."""

    def __init__(self) -> None:
        super().__init__(
            "a part of the body is waited for, or sent, while a write is open, and a slow client would hold the "
            "connection: read the body first, or commit before the next part. "
            "A stream of rows is opened after the commit, for it would end with it."
        )


class ChildWriteError(RuntimeError):
    """A child task wants to write while its request has a write open: both would wait for each other."""


class EndedRequestError(RuntimeError):
    """A task came to the database when the request that had started it was over."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        super().__init__(
            f"the request that started the task {task.get_name()!r} has ended, and what a request starts and what "
            "touches the database ends with it: `latchkey.background(…)` starts what goes on."
        )


_request_scope: ContextVar["RequestScope | None"] = ContextVar("latchkey_request_scope", default=None)


class RequestScope:
    """One request: its task, its own session, and the sessions that child tasks and late work opened.

    A child inherits the context, so `RequestScope.current()` answers in it too; that is how a session
    that is opened there finds the request it belongs to. A child is known from the first time that it comes to the
    database until it ends, whether it holds a session at the moment or not.
    """

    __slots__ = (
        "_token",
        "children",
        "closing",
        "commits",
        "finished",
        "lost",
        "session",
        "sessions",
        "settled",
        "stalled",
        "takes_children",
        "task",
    )

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.session: ManagedSession | None = None
        self.sessions: dict[ManagedSession, asyncio.Task[Any]] = {}
        self.children: set[asyncio.Task[Any]] = set()
        self.takes_children = True
        self.closing: set[asyncio.Task[None]] = set()
        self.lost: dict[ManagedSession, str] = {}
        self.commits = 0  # by any session of the request; after the first the endpoint is not run again
        self.settled = False
        self.stalled = False  # the database let it wait for too long: nothing more is waited for
        self.finished = False
        self._token: Token[RequestScope | None]

    @classmethod
    def current(cls) -> "RequestScope | None":
        """Return the request scope of this context, or None outside requests and after the request has ended."""
        request_scope = _request_scope.get()
        return None if request_scope is None or request_scope.finished else request_scope

    def __enter__(self) -> Self:
        """Make this the request scope of the context."""
        self._token = _request_scope.set(self)
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the context to whoever was there before."""
        self.finished = True
        self.session = None  # it knows its request scope: together they would wait for the garbage collector
        _request_scope.reset(self._token)

    @classmethod
    @contextmanager
    def outside(cls) -> Iterator[None]:
        """Give the server a context without a request scope: in it, it starts the next request of a connection."""
        token = _request_scope.set(None)
        try:
            yield
        finally:
            _request_scope.reset(token)

    @classmethod
    def admit(cls, task: "asyncio.Task[Any]") -> None:
        """Note that `task` comes to the database, so that it ends with the request that started it.

        Raises:
            EndedRequestError: that request has ended, or is about to.
        """
        request_scope = _request_scope.get()
        if (
            request_scope is None
            or task is request_scope.task
            or task in request_scope.children
            or is_helper(task)
        ):
            return
        if not request_scope.takes_children:
            raise EndedRequestError(task)
        request_scope.children.add(task)

    def register(self, session: ManagedSession, task: "asyncio.Task[Any]") -> bool:
        """Take `session` in; True for the request's own one, which `SessionMiddleware` looks after."""
        if self.session is None and task is self.task:
            self.session = session
            return True
        self.sessions[session] = task
        return False

    def allow_write(self, task: "asyncio.Task[Any]") -> None:
        """Raise `ChildWriteError` when `task` may not write, because the request itself holds the writer.

        Two requests that each wait for a child, whose child waits for a connection, would fill any pool.
        """
        if self.session is not None and self.session.on_writer:
            raise ChildWriteError(
                f"the child task {task.get_name()!r} wants to write while its request has a write open: "
                "commit in the request first, or do the write there."
            )

    async def settle(self, status: int) -> None:
        """Commit what is left for an answer below 400, else roll back; then retire the request's session."""
        session = self.session
        if session is None or self.settled:
            return
        self.require_written()
        if not session.idle:
            if status < 400:  # noqa: PLR2004 - RFC 9110: from 400 on an answer reports an error
                await session.settle(is_streamed=True)
            else:
                if lost := session.unwritten:
                    log.warning("the answer %d drops changes: %s", status, lost)
                await session.rollback()
        self.settled = True
        session.refuse_further_use()

    async def release_connection(self) -> None:
        """Let the request's own session hold nothing while the next part of the body is awaited."""
        if self.session is not None and not self.settled and asyncio.current_task() is self.task:
            await self.session.release_connection()

    @property
    def is_streaming(self) -> bool:
        """A session of the request keeps its connection for the rows of a stream."""
        own = self.session
        return (own is not None and own.is_streaming) or any(one.is_streaming for one in self.sessions)

    async def release_late_connections(self, *, is_last: bool) -> None:
        """Let what a streamed body reads with hold nothing while a part of it is sent, but for streams of rows."""
        own = self.session
        if own is not None and not own.idle:
            await own.release_connection(ends_streams=is_last)
        if not self.sessions:
            return
        task = asyncio.current_task()
        for session, owner in list(self.sessions.items()):
            if owner is task:
                await session.release_connection()

    def close(self) -> bool:
        """Take no children any more; True when `finish` has something to do."""
        self.takes_children = False
        return bool(self.sessions or self.closing or self._running())

    def _running(self) -> set["asyncio.Task[Any]"]:
        """Return the other tasks that came to the database and still run."""
        known = {*self.children, *self.sessions.values()} - {self.task}
        return {task for task in known if not task.done()}

    async def finish(self) -> None:
        """Cancel children that still run, wait for them, and close every session but the request's own."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CHILD_DEADLINE_S
        while (running := self._running()) or self.sessions or self.closing:
            for session, task in self.sessions.items():
                if task in running and (changes := session.unwritten):
                    log.warning(
                        "the request ended before its child task %r committed %s", task.get_name(), changes
                    )
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=max(0.0, deadline - loop.time()))
                if loop.time() >= deadline:
                    names = sorted(task.get_name() for task in running if not task.done())
                    log.error("child tasks ignore their cancellation, their sessions stay open: %s", names)
                    return
            for session, task in list(self.sessions.items()):
                if task is self.task or task.done():
                    self.note_unwritten(session, task)
                    await session.end()
            if self.closing:
                await asyncio.wait(self.closing)

    def note_unwritten(self, session: ManagedSession, task: "asyncio.Task[Any]") -> None:
        """Remember, once, that `task` ended well but left work that nothing committed."""
        if session in self.lost or (changes := session.unwritten) is None:
            return
        if task.done() and (task.cancelled() or task.exception() is not None):
            return
        sentence = (
            f"the task {task.get_name()!r} ended without committing {changes}: "
            "give the verb auto_commit=True, or commit its session."
        )
        self.lost[session] = sentence
        if self.settled:
            log.error("%s", sentence)

    def require_written(self) -> None:
        """Raise when a child has ended with work that nothing committed."""
        self._note_ended_children()
        if self.lost:
            raise UnwrittenWorkError("; ".join(self.lost.values()))

    def _note_ended_children(self) -> None:
        # A task's callbacks run a loop step after whoever awaited it goes on.
        for session, task in list(self.sessions.items()):
            if task.done():
                self.note_unwritten(session, task)
