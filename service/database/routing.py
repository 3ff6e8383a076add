"""The routing of a session's statements: reads go to the reader, everything else to the writer (R8, R5, R10, R11)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, MissingGreenlet, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.util.concurrency import await_, in_greenlet

from latchkey.middleware.session_errors import BrokenTransactionError, ForeignBindError
from latchkey.models import hooks
from latchkey.service.database.own_task import require_own_task
from latchkey.service.database.prepared import Prepared
from latchkey.service.database.record_events import with_record
from latchkey.service.database.rules import Rules
from latchkey.service.database.statements import is_plain_read, locks
from latchkey.service.database.transaction import TransactionRecord

M = TypeVar("M", bound=Callable[..., Any])
R = TypeVar("R")


def step(method: M) -> M:
    """Make `method` one step: when the outermost step ends, the reader's connection is released."""

    @wraps(method)
    def stepped(self: "RoutingSession", /, *args: Any, **kwargs: Any) -> Any:
        self.depth += 1
        try:
            return method(self, *args, **kwargs)
        except PendingRollbackError as error:
            raise BrokenTransactionError from error
        except (DBAPIError, PoolTimeoutError) as error:
            if not self.may_read_again_after(error):
                raise
            # The pooled connection was dead before the statement reached the server: read again.
            self.drop_connection()
            return method(self, *args, **kwargs)
        finally:
            self.depth -= 1
            if not self.depth:
                self.release_connection()

    return cast(M, stepped)


def write(method: M) -> M:
    """Prepare the writer before `method`, which writes without a flush."""

    @wraps(method)
    def written(self: "RoutingSession", /, *args: Any, **kwargs: Any) -> Any:
        self.prepare_writer()
        return method(self, *args, **kwargs)

    return cast(M, written)


@with_record
class RoutingSession(Session):
    """A session that reads on the AUTOCOMMIT reader and writes on the transactional writer (R8).

    A plain SELECT uses `reads_from`, and its connection is released as soon as the rows have arrived, so a request that
    reads never holds a connection while it waits for anything else. Every other statement uses the writer, and from then
    on the session uses only the writer until it commits or rolls back.
    """

    def __init__(self, *args: Any, rules: Rules, **kwargs: Any) -> None:
        self.rules = rules
        super().__init__(*args, **kwargs)
        self.record = TransactionRecord()
        self.durable: list[Any] = []  # instances with a committed change whose hooks have not run yet
        self.depth = 0
        self.is_flushing = False

    # ------------------------------------------------------------------ where statements go

    def get_bind(
        self,
        mapper: Any = None,  # noqa: ARG002 - as in Session
        *,
        clause: Any = None,
        bind: Any = None,
        **kwargs: Any,  # noqa: ARG002 - as in Session
    ) -> Any:
        """Return the engine for a statement, without taking a connection or changing any state."""
        rules = self.rules
        if rules.refusal is not None:
            raise rules.refusal
        require_own_task(rules.task)  # loading an attribute bypasses the methods of the session
        if bind is not None:
            if not rules.engines.include(bind):
                raise ForeignBindError
            return bind
        if self.record.on_writer or rules.transactional or self._begun_by_hand or self.is_flushing:
            return rules.engines.writer.sync_engine
        return (rules.reads_from if is_plain_read(clause) else rules.engines.writer).sync_engine

    def prepare_writer(self, clause: Any = None, bind: Any = None) -> None:
        """Check that the writer may be used, and release the reader's connection."""
        rules = self.rules
        if (
            self.record.on_writer
            or self.get_bind(clause=clause, bind=bind) is not rules.engines.writer.sync_engine
        ):
            return
        if not rules.transactional and rules.before_write is not None:
            rules.before_write()
        self.release_connection()

    @property
    def bind(self) -> Engine:
        """Return the engine of the writer; `get_bind` returns the engine for a statement."""
        return self.rules.engines.writer.sync_engine

    @bind.setter
    def bind(self, bind: object) -> None:
        if bind is not self.bind:
            raise ForeignBindError

    def bind_mapper(self, *_arguments: Any) -> None:
        """Raise `ForeignBindError`: a session uses only the engines of its database."""
        raise ForeignBindError

    bind_table = bind_mapper  # type: ignore[assignment]  # it takes a table, and refuses it too

    @property
    def _begun_by_hand(self) -> bool:
        transaction = self.get_transaction()
        return transaction is not None and (
            transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or self.in_nested_transaction()
        )

    def may_read_again_after(self, error: DBAPIError | PoolTimeoutError) -> bool:
        """Return whether a failed read may be run again: on the primary, or because nothing else used its connection."""
        record = self.record
        if not (record.on_writer or self._begun_by_hand or record.is_streaming) and self.rules.leave_replica(
            error
        ):
            return True
        if not (isinstance(error, DBAPIError) and error.connection_invalidated):
            return False
        first = not record.on_writer or (record.statements == 1 and not self._begun_by_hand)
        return self.depth == 1 and not record.sent_write and first

    # ------------------------------------------------------------------ what is open

    @property
    def on_writer(self) -> bool:
        """Return whether the session holds a connection of the writing engine."""
        return self.record.on_writer

    @property
    def only_read(self) -> bool:
        """Return whether nothing would be lost if the transaction ended here."""
        return self.record.only_read and not self._begun_by_hand

    @property
    def wishes(self) -> hooks.Wishes:
        """Return the `refresh` arguments of verbs for instances that are flushed next."""
        return self.record.wishes

    @property
    def changes(self) -> hooks.Changes:
        """Return the changes that were flushed at the innermost level of the transaction."""
        return self.record.changes

    @property
    def all_changes(self) -> Iterable[hooks.Changes]:
        """Return the changes that were flushed in the transaction, level by level."""
        return (level.changes for level in self.record.levels)

    @property
    def clean(self) -> bool:
        """Return whether no instance waits for a flush."""
        return not (self.identity_map.check_modified() or self.new or self.deleted)

    @property
    def blank(self) -> bool:
        """Return whether nothing is open and the session never had an instance, so that there is nothing to close."""
        return not self.identity_map and self.idle

    @property
    def idle(self) -> bool:
        """Return whether nothing is pending and no transaction is open."""
        return not self.in_transaction() and self.clean

    @property
    def unwritten(self) -> str | None:
        """Return a description of the uncommitted changes, or None."""
        if not self.clean:
            pending = [*self.new, *self.deleted, *(one for one in self.dirty if self.is_modified(one))]
            if pending:
                return ", ".join(sorted({type(one).__name__ for one in pending}))
        return "what it wrote" if self.record.wrote else None

    @property
    def is_streaming(self) -> bool:
        """Return whether a stream has unread rows."""
        return self.record.is_streaming

    def release_connection(self) -> None:
        """Return the reader's connection to its pool; loaded instances stay loaded and attached (R5).

        Only the transaction object is ended, if it has a connection; `add` begins one without. Nothing is sent, because the reader is in AUTOCOMMIT mode, and neither
        `rollback()`, which expires instances, nor `close()`, which detaches them, is needed.
        A flush has a transaction of its own, in which it may read before it writes.
        """
        record = self.record
        if record.has_connection and not (
            record.on_writer or record.is_streaming or self.is_flushing or self._begun_by_hand
        ):
            self.drop_connection()

    def drop_connection(self) -> None:
        """End the transaction object without affecting the instances; to the caller the transaction continues."""
        if (transaction := self.get_transaction()) is not None:
            self.abandon_streams()
            record = self.record
            transaction.close()
            self.record = record.after_release()

    def abandon_streams(self) -> None:
        """Close the open streams together with their connection."""
        for stream in self.record.take_streams():
            stream.abandon()

    # ------------------------------------------------------------------ statements

    @step
    def execute(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:
        return super().execute(statement, params, **self._prepared_for(statement, kwargs))

    @step
    def scalar(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:
        return super().scalar(statement, params, **self._prepared_for(statement, kwargs))

    @step
    def scalars(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:
        return super().scalars(statement, params, **self._prepared_for(statement, kwargs))

    def _prepared_for(self, statement: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Prepare the session for a statement, and return the arguments to execute it with."""
        if not in_greenlet():
            raise MissingGreenlet(
                "a statement was sent outside of an await, before any connection was taken: use the session's own "
                "methods, which are awaited, or `await session.run_sync(function)`. If it was an attribute that is not "
                "loaded, load it in the query."
            )
        if locks(statement):
            # A lock on a stale copy is useless. Pending changes are written first, so that they are not lost.
            options = kwargs.get("execution_options") or {}
            self.flush()
            kwargs["execution_options"] = {**options, "populate_existing": True}
        self.prepare_writer(statement, (kwargs.get("bind_arguments") or {}).get("bind"))
        return kwargs

    bulk_save_objects = write(Session.bulk_save_objects)
    bulk_insert_mappings = write(Session.bulk_insert_mappings)
    bulk_update_mappings = write(Session.bulk_update_mappings)

    get = step(Session.get)
    get_one = step(Session.get_one)
    merge = step(Session.merge)

    @step
    def refresh(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("with_for_update"):
            self.flush()  # as in execute: a pending change is written, so that it is not lost
        super().refresh(*args, **kwargs)

    @property
    def reads_apart(self) -> bool:
        """Return whether a plain read would use the reader, see nothing pending, and share no connection."""
        return not (self.in_transaction() or (self.autoflush and not self.clean))

    @step
    def read(self, prepared: Prepared[R], values: Mapping[Any, Any]) -> Sequence[R]:
        """Run a prepared SELECT where any other SELECT would run, bypassing the ORM, which creates no instances."""
        if self.autoflush or not prepared.is_plain_read:
            self.flush()
        if self.get_bind(clause=prepared.statement) is not self.rules.engines.writer.sync_engine:
            # A step repeats its read by itself.
            ask = await_(self.rules.fetch()) if self.rules.needs_position else None
            return await_(prepared.run_once(self.rules.reads_from, values, ask=ask))
        connection = self.connection()
        plan = prepared.plan_for(connection.dialect)
        return plan.read(connection.exec_driver_sql(*plan.bind(values)).all(), None)

    def run(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Run `function(session, …)` as one step, which uses one connection for all its reads."""
        self.depth += 1
        try:
            return function(self, *args, **kwargs)
        finally:
            self.depth -= 1
            if not self.depth:
                self.release_connection()

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Any:
        """Return the connection of the transaction: that of the writer, unless another one is requested."""
        self.prepare_writer(bind=(bind_arguments or {}).get("bind"))
        try:
            return super().connection(bind_arguments, execution_options)
        except PendingRollbackError as error:
            raise BrokenTransactionError from error

    # ------------------------------------------------------------------ flush, commit, rollback

    def begin(self, nested: bool = False) -> SessionTransaction:
        """Begin a transaction, or a SAVEPOINT, on the writer."""
        self.release_connection()
        return super().begin(nested)

    def flush(self, objects: Any = None) -> None:
        """Write pending changes, on the writer."""
        if self.clean:
            return
        self.prepare_writer()
        outer, self.is_flushing = self.is_flushing, True
        try:
            super().flush(objects)
            hooks.load_inserted(self, self.changes.take_inserted())
        except PendingRollbackError as error:
            raise BrokenTransactionError from error
        finally:
            self.is_flushing = outer

    def flush_and_refresh(self) -> None:
        """Flush, and load values that the database generated, inside the transaction (R10)."""
        self.flush()
        hooks.refresh_written(self, self.all_changes)

    def commit(self) -> None:
        """Flush, refresh and commit."""
        self.flush_and_refresh()
        try:
            super().commit()
        except PendingRollbackError as error:
            raise BrokenTransactionError from error

    def rollback(self) -> None:
        """Roll back and expire loaded instances; pending instances are discarded too, even when no transaction is open."""
        if not self.in_transaction() and (self.record.began or not self.clean):
            super().begin()
        self.abandon_streams()
        super().rollback()

    def close(self) -> None:
        """Close the session; unread rows of a stream cost the connection."""
        self.abandon_streams()
        super().close()

    def reset(self) -> None:
        """Close the session as `close` does, and allow further use."""
        self.abandon_streams()
        super().reset()
