"""The request scope: the database work of one HTTP request, including its child tasks (R7)."""

import asyncio
import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Protocol, Self

from latchkey.middleware.completion import is_helper
from latchkey.middleware.session_errors import ChildWriteError, EndedRequestError, UnwrittenWorkError

log = logging.getLogger("latchkey.session")

CHILD_DEADLINE_S = 10.0  # how long a cancelled child may take to end before the request stops waiting for it


class ManagedSession(Protocol):
    """The interface of a session that a request scope uses, implemented by `latchkey.service.database.session.RequestSession`."""

    @property
    def idle(self) -> bool:
        """Return whether nothing is pending and no transaction is open."""

    @property
    def on_writer(self) -> bool:
        """Return whether the session holds a connection of the writing engine."""

    @property
    def unwritten(self) -> str | None:
        """Return a description of the uncommitted changes, or None."""

    @property
    def is_streaming(self) -> bool:
        """Return whether a stream has unread rows, so that the session keeps its connection."""

    async def settle(self, *, is_streamed: bool = False) -> None:
        """Commit pending work; with `is_streamed` the body continues to read from the open streams."""

    async def rollback(self) -> None: ...
    async def end(self) -> None:
        """Close the session and remove it from every registry; may be called any number of times."""

    async def release_connection(self, *, ends_streams: bool = False) -> None:
        """Release the connection, except that of a stream of rows, which `ends_streams` releases too."""

    def refuse_further_use(self) -> None:
        """Refuse further use: the response of the request has started."""


Compartment = tuple[str, Hashable]
"""A part of a connection pool: its kind, and the row or owner that the requests in it have in common."""

_request_scope: ContextVar["RequestScope | None"] = ContextVar("latchkey_request_scope", default=None)


class RequestScope:
    """One request: its task, its own session, and the sessions that child tasks and late work opened.

    A child task inherits the context, so `RequestScope.current()` works there too. A session that is opened in a child
    finds its request this way.
    """

    __slots__ = (
        "_token",
        "children",
        "closing",
        "commits",
        "compartments",
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
        self.commits = (
            0  # by any session of the request; after the first commit the endpoint is not run again
        )
        self.compartments: tuple[Compartment, ...] = ()  # in which it takes connections
        self.settled = False
        self.stalled = False  # the database did not answer in time: the request does not wait for it again
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
        """Restore the previous request scope of the context."""
        self.finished = True
        self.session = None  # a reference cycle with its request scope would wait for the garbage collector
        _request_scope.reset(self._token)

    @classmethod
    @contextmanager
    def outside(cls) -> Iterator[None]:
        """Enter a context without a request scope, in which the server starts the next request of a connection."""
        token = _request_scope.set(None)
        try:
            yield
        finally:
            _request_scope.reset(token)

    @classmethod
    def admit(cls, task: "asyncio.Task[Any]") -> None:
        """Record that `task` uses the database, so that it ends with the request that started it.

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
        """Register `session`; return True for the request's own session, which `SessionMiddleware` manages."""
        if self.session is None and task is self.task:
            self.session = session
            return True
        self.sessions[session] = task
        return False

    def allow_write(self, task: "asyncio.Task[Any]") -> None:
        """Raise `ChildWriteError` when `task` may not write because the request itself holds the writer.

        Two requests that each wait for a child, while the child waits for a connection, could exhaust any pool.
        """
        if self.session is not None and self.session.on_writer:
            raise ChildWriteError(
                f"the child task {task.get_name()!r} wants to write while its request has a write open: "
                "commit in the request first, or write there."
            )

    async def settle(self, status: int) -> None:
        """Commit pending work for a response below 400, otherwise roll back; then refuse further use of the request's session."""
        session = self.session
        if session is None or self.settled:
            return
        self.require_written()
        if not session.idle:
            if status < 400:  # noqa: PLR2004 - RFC 9110: from 400 on a response reports an error
                await session.settle(is_streamed=True)
            else:
                if lost := session.unwritten:
                    log.warning("the response %d drops changes: %s", status, lost)
                await session.rollback()
        self.settled = True
        session.refuse_further_use()

    async def release_connection(self) -> None:
        """Release the connection of the request's own session while the next part of the body is awaited."""
        if self.session is not None and not self.settled and asyncio.current_task() is self.task:
            await self.session.release_connection()

    @property
    def is_streaming(self) -> bool:
        """Return whether a session of the request keeps its connection for the rows of a stream."""
        own = self.session
        return (own is not None and own.is_streaming) or any(one.is_streaming for one in self.sessions)

    async def release_late_connections(self, *, is_last: bool) -> None:
        """Release the connections of a streamed body while a part of it is sent, except those of streams of rows."""
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
        """Accept no more child tasks; return True when `finish` has work to do."""
        self.takes_children = False
        return bool(self.sessions or self.closing or self._running())

    def _running(self) -> set["asyncio.Task[Any]"]:
        """Return the other tasks that used the database and still run."""
        known = {*self.children, *self.sessions.values()} - {self.task}
        return {task for task in known if not task.done()}

    async def finish(self) -> None:
        """Cancel the children that still run, wait for them, and close every session except the request's own."""
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
        """Record, once, that `task` ended successfully but left uncommitted work."""
        if session in self.lost or (changes := session.unwritten) is None:
            return
        if task.done() and (task.cancelled() or task.exception() is not None):
            return
        sentence = (
            f"the task {task.get_name()!r} ended without committing {changes}: "
            "pass auto_commit=True to the verb, or commit its session."
        )
        self.lost[session] = sentence
        if self.settled:
            log.error("%s", sentence)

    def require_written(self) -> None:
        """Raise `UnwrittenWorkError` when a child task has ended with uncommitted work."""
        self._note_ended_children()
        if self.lost:
            raise UnwrittenWorkError("; ".join(self.lost.values()))

    def _note_ended_children(self) -> None:
        # A task's callbacks run one loop step after the task that awaited it continues.
        for session, task in list(self.sessions.items()):
            if task.done():
                self.note_unwritten(session, task)
