"""The session of a request: how it commits, which task owns it, and when it ends (R1, R4 to R7, R9)."""

import asyncio
import logging
from asyncio import current_task
from collections.abc import Callable, Coroutine, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from sqlalchemy.orm import Session

from latchkey.middleware.completion import complete, help_with
from latchkey.middleware.request_scope import RequestScope
from latchkey.middleware.session_errors import (
    CommitUnknownError,
    EndedSessionError,
    ForeignBindError,
    OpenWriteError,
    SettledSessionError,
    UnwrittenWorkError,
)
from latchkey.models import hooks
from latchkey.service.database.own_task import InUse, of_one_task, other_than, require_own_task
from latchkey.service.database.plan import MakeRowReader, Statement
from latchkey.service.database.prepared import Prepared
from latchkey.service.database.routing import RoutingSession
from latchkey.service.database.rules import Engines, Rules
from latchkey.service.database.stalls import has_stalled, note_stall

log = logging.getLogger("latchkey.session")

COMMIT_DEADLINE_S = 15.0  # after it, the outcome of a COMMIT counts as unknown
END_DEADLINE_S = 10.0  # after it, a rollback or a close is aborted, and its connection dropped
STALLED_END_DEADLINE_S = 0.1  # the same, once the database has exceeded a time limit in this request

R = TypeVar("R")


async def within_deadline(work: Coroutine[Any, Any, R]) -> R:
    """Run a rollback or a close with a deadline: it cannot be cancelled, and the server may be gone."""
    async with asyncio.timeout(STALLED_END_DEADLINE_S if has_stalled() else END_DEADLINE_S):
        return await work


class Transaction(AsyncSessionTransaction):
    """The block `async with session.begin()`, which commits as `session.commit()` does."""

    session: "RequestSession"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit the outermost transaction to the end; end anything else as usual."""
        if kind is None and not self.nested:
            await complete(self.session.finish_commit(super().__aexit__(kind, error, trace)))
            return
        try:
            if not self.nested and self.session.is_streaming:
                await complete(AsyncSession.run_sync(self.session, RoutingSession.abandon_streams))  # type: ignore[arg-type]  # our sync_session_class
        finally:
            await super().__aexit__(kind, error, trace)


@of_one_task
class RequestSession(AsyncSession):
    """An `AsyncSession` that commits and rolls back to the end, releases connections early, and checks its owner.

    Only the scoped session creates it. `async with` may be nested: only the outermost block closes the session (R9), and
    leaving it with uncommitted changes raises `UnwrittenWorkError`. A session that is opened in a child task of a request,
    or by a bare `scoped_session()` anywhere else, is closed when its task ends (R7). Any other task that uses it is refused
    (`OtherTaskError`).
    """

    sync_session_class = RoutingSession

    def __init__(
        self,
        *,
        registry: MutableMapping[Any, Any],
        closings: "set[asyncio.Task[None]]",
        engines: Engines,
        **kwargs: Any,
    ) -> None:
        task = current_task()
        if task is None:
            raise RuntimeError("a session belongs to a task: open it in a task, not in a callback.")
        if kwargs.get("bind") is not None or kwargs.get("binds"):
            raise ForeignBindError
        RequestScope.admit(task)
        self.rules = Rules(engines, task)
        self._arguments = {**kwargs, "bind": engines.writer}
        self._registry = registry  # the scoped session's registry, by task
        self._closings = closings  # sessions outside requests that are closing; shutdown waits for them
        self._task = task
        self.calls = 0  # the number of running calls
        self.was_left = False  # True if its block was left in another task
        self._entered = 0
        self._ended = False
        self._runs_hooks = True
        self._request_scope = request_scope = RequestScope.current()
        self._inside: RoutingSession | None = None
        self._is_requests_own = request_scope is not None and request_scope.register(self, task)
        if not self._is_requests_own:
            task.add_done_callback(self._end_with_task)
            if request_scope is not None:
                self.rules.before_write = partial(request_scope.allow_write, task)

    @property  # type: ignore[override]  # created on first access, and of our own class
    def sync_session(self) -> RoutingSession:
        """Return the inner session, which is created on first access: most requests with a cached key never need it (R3)."""
        if self._inside is None:
            super().__init__(rules=self.rules, **self._arguments)
            assert self._inside is not None  # noqa: S101 - the setter has run
        return self._inside

    @sync_session.setter
    def sync_session(self, inside: RoutingSession) -> None:
        self._inside = inside

    _proxied = sync_session

    @property
    def untouched(self) -> bool:
        """Return whether the session was not used yet."""
        return self._inside is None

    def require_own_task(self) -> None:
        """Raise `OtherTaskError` in any task but the owner, as long as the session may be used at all."""
        if self.rules.refusal is None:
            require_own_task(self._task)

    # ------------------------------------------------------------------ what a request scope asks

    @property
    def idle(self) -> bool:
        """Return whether nothing is pending and no transaction is open."""
        return self.untouched or self.sync_session.idle

    @property
    def on_writer(self) -> bool:
        """Return whether the session holds a connection of the writing engine."""
        return not self.untouched and self.sync_session.on_writer

    @property
    def unwritten(self) -> str | None:
        """Return a description of the uncommitted changes, or None."""
        return None if self.untouched else self.sync_session.unwritten

    @property
    def is_streaming(self) -> bool:
        """Return whether a stream has unread rows, so that the session keeps its connection."""
        return not self.untouched and self.sync_session.is_streaming

    async def release_connection(self, *, ends_streams: bool = False) -> None:
        """Release the connection while a part of a body is received or sent; a stream of rows keeps its own.

        Raises:
            OpenWriteError: a write or a lock is open, and would be held meanwhile.
        """
        if self.untouched:
            return
        routing = self.sync_session
        is_streaming = routing.is_streaming
        if not routing.on_writer and not is_streaming:
            routing.release_connection()
        elif not routing.only_read:
            raise OpenWriteError
        elif ends_streams or not is_streaming:
            await complete(super().run_sync(RoutingSession.drop_connection))  # type: ignore[arg-type]  # our sync_session_class

    def refuse_further_use(self) -> None:
        """Refuse further statements: the response of the request has started."""
        self.rules.refusal = SettledSessionError

    # ------------------------------------------------------------------ where statements go

    def enter_endpoint(self, *, safe: bool) -> None:
        """Choose where the endpoint reads: a safe method on the replica if there is one, any other method on the writer."""
        rules = self.rules
        rules.transactional = not safe
        rules.reads_from = rules.engines.for_reads

    def forbid_commit(self, forbidden: bool) -> None:
        """Refuse every commit from now on, or allow them again: an idempotent call writes in one transaction."""
        self.rules.commit_forbidden = forbidden

    def add(self, instance: object, **options: Any) -> None:
        """Add an instance, which is flushed next.

        Raises:
            EndedSessionError: the session has ended, and the instance would stay attached to it.
        """
        if self.rules.refusal is EndedSessionError:
            raise EndedSessionError
        super().add(instance, **options)

    def add_all(self, instances: Iterable[object]) -> None:
        """Add several instances, as `add` does."""
        for instance in instances:
            self.add(instance)

    async def run_sync(self, fn: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Run `fn(session, …)` in one greenlet and on one connection, so that several steps cost as much as one."""

        def run(session: Session) -> R:
            assert isinstance(session, RoutingSession)  # noqa: S101 - our sync_session_class
            return session.run(fn, *args, **kwargs)

        return await super().run_sync(run)

    @staticmethod
    def prepare(statement: Statement, make: MakeRowReader[R], *, cache_key: Any = None) -> Prepared[R]:
        """Return a prepared statement for `read`, of any session."""
        return Prepared(statement, make, cache_key=cache_key)

    async def read(self, prepared: Prepared[R], values: Mapping[Any, Any]) -> Sequence[R]:
        """Run a prepared SELECT of columns, bypassing the ORM; it uses the same engine as any other SELECT."""
        rules = self.rules
        if (
            prepared.is_plain_read
            and not rules.transactional
            and rules.refusal is None
            and (self._inside is None or self._inside.reads_apart)
        ):
            require_own_task(self._task)
            try:
                return await prepared.run(
                    rules.reads_from, values, ask=await rules.fetch() if rules.needs_position else None
                )
            except (DBAPIError, PoolTimeoutError) as error:
                if not rules.leave_replica(error):
                    raise
                return await prepared.run(rules.reads_from, values)
        return await super().run_sync(RoutingSession.read, prepared, values)  # type: ignore[arg-type]  # our sync_session_class

    async def reset_for_retry(self) -> None:
        """Roll back and expunge every instance, as if nothing had been read or written."""
        await self.rollback()
        if not self.untouched:
            self.sync_session.expunge_all()

    async def flush_and_refresh(self) -> None:
        """Flush, and load values that the database generated; nothing is committed yet."""
        if self.untouched:
            return
        routing = self.sync_session
        if not routing.clean or hooks.want_refresh(routing.all_changes):
            await super().run_sync(RoutingSession.flush_and_refresh)  # type: ignore[arg-type]  # our sync_session_class

    # ------------------------------------------------------------------ commit, rollback, end

    def begin(self) -> AsyncSessionTransaction:
        """Begin a transaction explicitly: `async with session.begin()`."""
        return Transaction(self)

    async def commit(self) -> None:
        """Commit to the end, even if cancelled, then run the after-commit hooks.

        Raises:
            CommitUnknownError: the connection was lost, or the deadline passed, after COMMIT was sent.
        """
        if self.untouched:
            return
        routing = self.sync_session
        if not routing.clean:
            try:
                await (
                    self.flush()
                )  # may wait for a lock, and may be cancelled: nothing is sent yet that must run to its end
            except BaseException:
                await self.rollback()
                raise
        await complete(self.finish_commit(super().commit()))

    async def settle(self, *, is_streamed: bool = False) -> None:
        """Commit pending work; after reads alone there is nothing to commit.

        With `is_streamed` the body of the response may continue to read from the open streams.

        Raises:
            OpenWriteError: there are open streams, and writes or locks whose COMMIT would end their rows.
        """
        if is_streamed and self.is_streaming:
            routing = self.sync_session
            if not (routing.clean and routing.only_read):
                raise OpenWriteError
        elif not self.idle:
            await self.commit()

    async def finish_commit(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine that sends COMMIT under the deadline, classify its failure, and run the hooks."""
        routing = self.sync_session
        record = routing.record
        try:
            async with asyncio.timeout(COMMIT_DEADLINE_S):
                await work
        except Exception as error:
            unknown = record.commit_sent and (
                isinstance(error, TimeoutError | OSError)
                or (isinstance(error, DBAPIError) and error.connection_invalidated)
            )
            if isinstance(error, TimeoutError):
                note_stall()
            if unknown:
                routing.durable += hooks.with_hooks(record.changes, in_doubt=True)
            await within_deadline(super().rollback())
            if unknown:
                self._note_commit()
                await self._run_hooks()
                raise CommitUnknownError("the connection was lost after COMMIT was sent") from error
            raise
        if record.commit_sent:
            self._note_commit()
        await self._run_hooks()

    def _note_commit(self) -> None:
        self.rules.position = None  # a later read sees this commit too
        if self._request_scope is not None:
            self._request_scope.commits += 1

    async def _run_hooks(self) -> None:
        """Run the after-commit hooks on another session, so that their work does not affect this one."""
        waiting, self.sync_session.durable = self.sync_session.durable, []
        if not waiting or not self._runs_hooks:
            return
        async with type(self)(
            registry={},
            closings=self._closings,
            engines=self.rules.engines,
            autoflush=False,
            expire_on_commit=False,
        ) as own:
            own._runs_hooks = False  # noqa: SLF001 - hooks for the writes of a hook might never end
            await hooks.run_after_commit(waiting, own)

    async def rollback(self) -> None:
        """Roll back to the end, even if cancelled; loaded instances are expired, as by any other session."""
        if not self.idle or (not self.untouched and self.sync_session.record.began):
            await complete(within_deadline(super().rollback()))

    async def __aenter__(self) -> Self:
        """Enter a block; the session closes when the outermost block is left."""
        self._entered += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the session at the end of the outermost block."""
        self._entered -= 1
        if self._entered or self._ended:
            return
        if other_than(self._task) is not None:
            self._forget()
            self.was_left = True
            if not self.calls:
                await self.end_left()
            return
        lost = self.unwritten if kind is None and not self._is_requests_own else None
        await self.end()
        if lost is not None:
            raise UnwrittenWorkError(
                f"the session ended without committing {lost}: "
                "call `await session.commit()` to keep the changes, or `await session.rollback()` to discard them."
            )

    async def end(self) -> None:
        """Close the session and remove it from every registry; may be called any number of times."""
        if self._ended:
            return
        self._ended = True
        if self.untouched:
            self._leave()
            return
        if self.rules.refusal is not None and (late := self.unwritten):
            log.error(
                "%s was added to the request's session after the response had started, and is lost", late
            )
        try:
            try:
                if self.sync_session.durable:  # committed inside `run_sync`, without `commit()`
                    await self.rollback()
                    await complete(self._run_hooks())
            finally:
                if self.sync_session.in_transaction():
                    await complete(within_deadline(super().close()))
                elif not self.sync_session.blank:
                    self.sync_session.close()
        finally:
            self._leave()

    def join(self) -> InUse:
        """Return a block during which the session does not end: `async with session.join()`, for a verb that uses it."""
        return InUse(self)

    async def end_left(self) -> None:
        """End the session after its block was left in another task, where the garbage collector closes an async generator."""
        lost = self.unwritten
        await self.end()
        if lost is not None:
            raise UnwrittenWorkError(
                f"an async generator was left early, and the block in it ended without committing {lost}: "
                "`async with contextlib.aclosing(generator)` closes it in time."
            )

    def _forget(self) -> None:
        """Remove the session from the registry, so that the task can open another one."""
        if self._registry.get(self._task) is self:
            del self._registry[self._task]

    def _leave(self) -> None:
        self.rules.refusal = EndedSessionError
        self._forget()
        if not self._is_requests_own:
            self._task.remove_done_callback(self._end_with_task)
            if self._request_scope is not None:
                self._request_scope.sessions.pop(self, None)

    def _end_with_task(self, task: "asyncio.Task[Any]") -> None:
        """Close the session that the ended task left open: a child's session, or a bare `scoped_session()`."""
        if self._ended:
            return
        request_scope = self._request_scope
        if request_scope is not None:
            request_scope.note_unwritten(self, task)
        elif lost := self.unwritten:
            log.error("the task %r ended without committing %s", task.get_name(), lost)
        if self.untouched or not (self.sync_session.in_transaction() or self.sync_session.durable):
            self._ended = True
            if not self.untouched:
                self.sync_session.close()
            self._leave()
            return
        closing = help_with(self.end())
        closings = self._closings if request_scope is None else request_scope.closing
        closings.add(closing)
        closing.add_done_callback(closings.discard)
