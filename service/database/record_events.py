"""The record of a session follows SQLAlchemy's events (R4, R10)."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util.concurrency import await_

from latchkey.middleware.session_errors import CommitForbiddenError
from latchkey.models import hooks
from latchkey.models.journal import take_changes
from latchkey.service.database.positions import wait_in_greenlet
from latchkey.service.database.recording import record_changes
from latchkey.service.database.transaction import RECORD, TransactionRecord, require_open

C = TypeVar("C", bound=type[Session])


def _note_connection(session: Any, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return
    record = session.record
    record.began = record.has_connection = True
    record.on_writer = connection.engine is session.rules.engines.writer.sync_engine
    connection.execution_options(**{RECORD: record})
    rules = session.rules
    if rules.needs_position and connection.engine is rules.reads_from.sync_engine:
        wait_in_greenlet(connection, await_(rules.find_position()))


def _begin_savepoint(session: Any, transaction: SessionTransaction) -> None:
    if transaction.nested:
        session.record.begin_savepoint()


def _note_flush(session: Any, _context: object) -> None:
    session.changes.collect(session, session.wishes)


def _flush_before_commit(session: Any) -> None:
    if session.in_nested_transaction():
        return
    if session.rules.commit_forbidden:
        raise CommitForbiddenError
    session.flush_and_refresh()
    if changes := take_changes(one.journal for one in session.all_changes):
        writer = session.rules.engines.writer.sync_engine
        record_changes(session.connection(bind_arguments={"bind": writer}), changes)
    for stream in session.record.take_streams():
        stream.finish()
    if session.record.on_writer and session.in_transaction():
        writer = session.rules.engines.writer.sync_engine
        require_open(session.connection(bind_arguments={"bind": writer}), session.record)
    session.record.commit_sent = session.record.on_writer  # from here on only COMMIT itself can fail


def _note_commit(session: Any) -> None:
    if session.in_nested_transaction():
        session.record.levels[-1].released = True
    else:
        session.durable += hooks.with_hooks(session.changes)


def _note_rollback(session: Any) -> None:
    session.record.levels[-1].roll_back()


def _end_record(session: Any, transaction: SessionTransaction) -> None:
    if transaction.nested:
        session.record.end_savepoint()
    elif transaction.parent is None:
        for stream in session.record.take_streams():  # however the transaction ended
            stream.disown()
        session.record = TransactionRecord()


EVENTS: dict[str, Callable[..., Any]] = {
    "after_begin": _note_connection,
    "after_transaction_create": _begin_savepoint,
    "after_flush": _note_flush,
    "before_commit": _flush_before_commit,
    "after_commit": _note_commit,
    "after_rollback": _note_rollback,
    "after_transaction_end": _end_record,
}


def with_record(session_class: C) -> C:
    """Decorate a session class, so that each of its sessions has a record of its transaction."""
    for name, listener in EVENTS.items():
        event.listen(session_class, name, listener)
    return session_class
