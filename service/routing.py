"""Where a session's statements go: reads to the reader, everything else to the writer (R8, R5, R10, R11)."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import msgspec
from sqlalchemy import CompoundSelect, Select, TextClause, TextualSelect, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin
from sqlalchemy.util.concurrency import await_, in_greenlet

from models import hooks
from models.errors import NotLoadedError
from service.insertion import insert_lone
from service.prepared import Prepared

M = TypeVar("M", bound=Callable[..., Any])
R = TypeVar("R")


class Engines(msgspec.Struct, frozen=True):
    """The engines that a session chooses from: `reader` and `writer` are the primary, `replica` lags."""

    writer: AsyncEngine
    reader: AsyncEngine
    replica: AsyncEngine | None = None


class SealedSessionError(RuntimeError):
    """The endpoint of an idempotent route commits: what it wrote could be there without the answer to replay."""

    def __init__(self) -> None:
        super().__init__(
            "the endpoint of a route with idempotent=True leaves COMMIT to the adapter: "
            "no auto_commit=True and no commit of its own."
        )


class Rules:
    """What a session may do: told to it from outside, also before it does anything."""

    __slots__ = ("before_write", "engines", "reads_from", "refusal", "sealed", "transactional")

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self.reads_from = engines.reader
        self.transactional = False  # every statement on the writer: the endpoint of an unsafe method
        self.before_write: Callable[[], None] | None = None
        self.refusal: type[RuntimeError] | None = None  # why the session takes no more statements
        self.sealed = False  # nobody may commit now


class EndedSessionError(RuntimeError):
    """A session was used after it had ended; it would take a connection that nobody gives back."""

    def __init__(self) -> None:
        super().__init__(
            "this session has ended: open another one, `async with db.scoped_session() as session`."
        )


def step(method: M) -> M:
    """Make `method` one step: when the outermost step ends, the reader's connection goes back."""

    @wraps(method)
    def stepped(self: "RoutingSession", /, *args: Any, **kwargs: Any) -> Any:
        self.depth += 1
        try:
            return method(self, *args, **kwargs)
        except DBAPIError as error:
            if not (error.connection_invalidated and self.may_read_again):
                raise
            # The pooled connection was dead before the statement reached the server: read once more.
            self.drop_connection()
            return method(self, *args, **kwargs)
        finally:
            self.depth -= 1
            if not self.depth:
                self.give_back()

    return cast(M, stepped)


class RoutingSession(Session):
    """Reads on the AUTOCOMMIT reader, writes on the transactional writer (R8).

    A plain SELECT goes to `reads_from`, and its connection goes back as soon as the rows are here, so a
    request that reads never holds one while it waits for anything else. Everything that is not a plain
    SELECT goes to the writer, and from there on the session stays on it until it commits or rolls back.
    """

    def __init__(self, *args: Any, rules: Rules, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rules = rules
        self.on_writer = False
        self.wrote = False
        self.flushed = False  # in this transaction, whether it went well or not
        self.only_read = True  # on the writer, without a lock or anything else that ends with the transaction
        self.commit_sent = False
        self.depth = 0
        self.statements = 0  # on the writer, in this transaction
        self.streaming = False  # a server-side cursor needs its connection until the transaction ends

    def get_bind(
        self,
        mapper: Any = None,  # noqa: ARG002 - as in Session
        *,
        clause: Any = None,
        bind: Any = None,
        **kwargs: Any,  # noqa: ARG002 - as in Session
    ) -> Any:
        """Choose the engine for one statement."""
        if self.rules.refusal is not None:
            raise self.rules.refusal
        if bind is not None:
            return bind
        plain_read = isinstance(clause, Select | CompoundSelect) and clause._for_update_arg is None  # noqa: SLF001 - there is no public way to ask
        if not self.on_writer:
            if plain_read and not self.rules.transactional and not self._begun_by_hand and not self._flushing:
                return self.rules.reads_from.sync_engine
            if not self.rules.transactional and self.rules.before_write is not None:
                self.rules.before_write()
            if not self._flushing:  # a flush gave it back before it began its own transaction
                self.give_back()
            self.on_writer = True
        self.statements += 1
        self.only_read = self.only_read and (plain_read or reads_as_text(clause))
        self.flushed = self.flushed or self._flushing
        self.wrote = self.wrote or self._flushing or writes(clause)
        return self.rules.engines.writer.sync_engine

    @property
    def _begun_by_hand(self) -> bool:
        transaction = self.get_transaction()
        return transaction is not None and (
            transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or self.in_nested_transaction()
        )

    @property
    def may_read_again(self) -> bool:
        """Nothing but one read has happened on the connection."""
        first = not self.on_writer or (self.statements == 1 and not self._begun_by_hand)
        return self.depth == 1 and not self.wrote and not self.flushed and first

    @property
    def clean(self) -> bool:
        """No instance waits for a flush."""
        return self._is_clean()

    @property
    def blank(self) -> bool:
        """Nothing is open, and no instance was ever met: there is nothing to close."""
        return not self.identity_map and self.idle

    @property
    def idle(self) -> bool:
        """Nothing is pending and no transaction is open."""
        return not self.in_transaction() and self._is_clean()

    @property
    def unwritten(self) -> str | None:
        """The changes that nothing has committed, in words."""
        if self._is_clean():
            return "what it wrote" if self.wrote else None
        pending = [*self.new, *self.deleted, *(one for one in self.dirty if self.is_modified(one))]
        if pending:
            return ", ".join(sorted({type(one).__name__ for one in pending}))
        return "what it wrote" if self.wrote else None

    def give_back(self) -> None:
        """Return the reader's connection to its pool; what was loaded stays loaded and attached (R5).

        Ending the transaction object alone does it: nothing goes over the wire, because the reader is in
        AUTOCOMMIT mode, and neither `rollback()`, which expires, nor `close()`, which detaches, is needed.
        """
        if not self.on_writer and not self.streaming and not self._begun_by_hand:
            self.drop_connection()

    def drop_connection(self) -> None:
        """End the transaction object without a word to the instances."""
        if (transaction := self.get_transaction()) is not None:
            transaction.close()

    @step
    def execute(self, statement: Any, params: Any = None, **kwargs: Any) -> Any:
        options = dict(kwargs.pop("execution_options", None) or {})
        if not in_greenlet():
            raise NotLoadedError("what a query outside an await asks for")
        if options.get("stream_results"):
            self.streaming = True
        if getattr(statement, "_for_update_arg", None) is not None:
            # A stale copy is worth no lock; what was changed in it is written first, not lost.
            self.flush()
            options["populate_existing"] = True
        return super().execute(statement, params, execution_options=options, **kwargs)

    def scalar(self, *args: Any, **kwargs: Any) -> Any:
        return self.execute(*args, **kwargs).scalar()

    def scalars(self, *args: Any, **kwargs: Any) -> Any:
        return self.execute(*args, **kwargs).scalars()

    get = step(Session.get)
    get_one = step(Session.get_one)
    merge = step(Session.merge)

    @step
    def refresh(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("with_for_update"):
            self.flush()  # as in execute: a pending change is written, not lost
        super().refresh(*args, **kwargs)

    @step
    def read(self, prepared: Prepared, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a prepared SELECT where any other would go; past the ORM, which makes no instances of it."""
        engine = self.get_bind(clause=prepared.statement)
        if self.on_writer:
            own = self.connection(bind_arguments={"bind": engine})
            return own.execute(prepared.statement, values).all()
        # A step runs what it reads once more by itself.
        return await_(prepared.run_once(self.rules.reads_from, values))

    def run(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Run `function(session, …)` as one step: it holds one connection for all that it reads."""
        self.depth += 1
        try:
            return function(self, *args, **kwargs)
        finally:
            self.depth -= 1
            if not self.depth:
                self.give_back()

    def flush(self, objects: Any = None) -> None:
        """Write pending changes; inside `run`, after the reader's connection went back."""
        if self.depth and not self.on_writer and not self._is_clean():
            self.give_back()
        try:
            super().flush(objects)
        except BaseException:
            self.wrote = False  # a flush that fails has rolled back everything
            raise

    def _flush(self, objects: Any = None) -> None:
        if objects or not insert_lone(self, self.rules.engines.writer.dialect):
            super()._flush(objects)

    def write_out(self) -> None:
        """Flush, and bring back what the database decided (R10), inside the transaction."""
        self.flush()
        hooks.refresh_written(self)

    def commit(self) -> None:
        """Write out and commit."""
        self.write_out()
        super().commit()

    def rollback(self) -> None:
        """Roll back; pending instances go too, even when no transaction was open."""
        if not self.in_transaction() and not self._is_clean():
            self.begin()
        super().rollback()


def writes(clause: Any) -> bool:
    """Tell whether a statement is one whose loss somebody would notice.

    Text is judged by its first word, as the server would: it can hold anything.
    """
    if isinstance(clause, TextualSelect):
        clause = clause.element
    if isinstance(clause, TextClause):
        words = clause.text.split(maxsplit=1)
        return not words or words[0].upper() not in {"SELECT", "SHOW", "EXPLAIN", "PRAGMA", "SET"}
    return bool(getattr(clause, "is_dml", False))


def reads_as_text(clause: Any) -> bool:
    """Tell whether a text only reads, and takes no lock that would end with the transaction."""
    return isinstance(clause, TextClause) and not writes(clause) and " FOR " not in clause.text.upper()


@event.listens_for(RoutingSession, "after_flush")
def _note_flush(session: RoutingSession, _context: object) -> None:
    session.wrote = True
    hooks.collect(session)


@event.listens_for(RoutingSession, "before_commit")
def _write_out_before_commit(session: RoutingSession) -> None:
    if session.in_nested_transaction():
        return
    if session.rules.sealed:
        raise SealedSessionError
    session.write_out()
    session.commit_sent = True  # nothing but COMMIT itself can fail from here on


@event.listens_for(RoutingSession, "after_commit")
def _note_commit(session: RoutingSession) -> None:
    if session.in_nested_transaction():
        return
    hooks.mark_committed(session)


@event.listens_for(RoutingSession, "after_rollback")
def _forget_written(session: RoutingSession) -> None:
    hooks.forget(session)


@event.listens_for(RoutingSession, "after_transaction_end")
def _leave_writer(session: RoutingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.on_writer = session.wrote = session.flushed = session.streaming = False
        session.statements = 0
        session.only_read = True
