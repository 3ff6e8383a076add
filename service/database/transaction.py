"""The record of a session's work in its transaction: one object, which ends with the transaction (R4, R8, R10)."""

from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.middleware.session_errors import TransactionEndedError
from latchkey.models.hooks import Changes, Wishes
from latchkey.service.database.statements import Effect, effect_of
from latchkey.service.database.streams import Stream

LOST_STATUS = "latchkey_lost_status"  # in a connection's info: an error packet had no transaction flag
ENDED = "latchkey_ended"  # in a connection's info: the server reported that it ended the transaction
RECORD = "latchkey_record"  # the execution option that holds the record of a connection


class Level:
    """The work of a transaction since its beginning, or since one of its SAVEPOINTs."""

    __slots__ = ("changes", "locked", "released", "unsure", "wrote")

    def __init__(self) -> None:
        self.roll_back()
        self.released = False  # a SAVEPOINT that was released

    def roll_back(self) -> None:
        """Clear the record of the work."""
        self.wrote = False
        self.locked = False
        self.unsure = False  # a statement with an unknown effect
        self.changes = Changes()

    def absorb(self, inner: "Level") -> None:
        """Add the work of a SAVEPOINT."""
        self.wrote = self.wrote or inner.wrote
        self.locked = self.locked or inner.locked
        self.unsure = self.unsure or inner.unsure
        self.changes.absorb(inner.changes)


class TransactionRecord:
    """The writes, flushes, locks and statements in one transaction of a session.

    It exists before the transaction begins, and a new one replaces it whenever the transaction ends. Releasing a reader's
    connection between two statements does not end the transaction for the caller: `after_release` returns the record
    that continues then.
    """

    __slots__ = (
        "began",
        "commit_sent",
        "has_connection",
        "levels",
        "on_writer",
        "opened",
        "sent_write",
        "statements",
        "streams",
        "wishes",
    )

    def __init__(self, *, began: bool = False, wishes: Wishes | None = None) -> None:
        self.began = began  # True if a plain session would be in a transaction
        self.has_connection = False
        self.on_writer = False
        self.statements = 0  # the number of statements sent to the writer
        self.sent_write = False  # one of them writes, even if it was rolled back
        self.opened = False  # the last of them that matters has opened a transaction in the server
        self.streams: list[Stream] = []  # the streams that were opened
        self.commit_sent = False
        self.levels = [Level()]
        self.wishes: Wishes = {} if wishes is None else wishes  # for instances that are flushed next

    def after_release(self) -> Self:
        """Return the record that continues when only the connection was released."""
        return type(self)(began=True, wishes=self.wishes)

    @property
    def wrote(self) -> bool:
        """Return whether a change was sent that must be committed."""
        return any(level.wrote for level in self.levels)

    @property
    def only_read(self) -> bool:
        """Return whether nothing would be lost if the transaction ended here."""
        return not any(level.wrote or level.locked or level.unsure for level in self.levels)

    @property
    def changes(self) -> Changes:
        """Return the changes that were flushed at the innermost level."""
        return self.levels[-1].changes

    @property
    def is_streaming(self) -> bool:
        """Return whether a stream has unread rows."""
        return bool(self.streams) and any(stream.is_open for stream in self.streams)

    def take_streams(self) -> list[Stream]:
        """Remove and return the open streams, which the caller must close."""
        taken, self.streams = [stream for stream in self.streams if stream.is_open], []
        return taken

    def note(self, effect: Effect) -> None:
        """Record a statement that is sent to the writer."""
        self.statements += 1
        level = self.levels[-1]
        if effect is Effect.WRITES or effect is Effect.COMMITS:
            self.sent_write = level.wrote = True
            self.opened = effect is Effect.WRITES
        elif effect is Effect.LOCKS:
            level.locked = self.opened = True
        elif effect is Effect.UNKNOWN:
            level.unsure = True

    def begin_savepoint(self) -> None:
        """Add a level."""
        self.levels.append(Level())

    def end_savepoint(self) -> None:
        """End the innermost level: its work is kept only if the SAVEPOINT was released."""
        ended = self.levels.pop()
        if ended.released:
            self.levels[-1].absorb(ended)

    def ignore_writes(self) -> None:
        """Do not count the writes so far as changes that must not be lost; they keep the transaction open like a lock."""
        for level in self.levels:
            level.locked = level.locked or level.wrote
            level.wrote = False


def require_open(connection: Any, record: TransactionRecord) -> None:
    """Raise an error if the server has ended the transaction (R4).

    Every response of MariaDB and MySQL contains a flag that says whether a transaction is open, so the check costs no round
    trip. After an error the flag may be stale, and is not checked.

    Raises:
        TransactionEndedError: the transaction had writes or locks.
    """
    if not record.opened:
        return
    if connection.info.get(ENDED):
        raise TransactionEndedError
    is_open = getattr(connection.connection.driver_connection, "get_transaction_status", None)
    if is_open is not None and not connection.info.get(LOST_STATUS) and not is_open():
        raise TransactionEndedError


def keep_records(engine: AsyncEngine) -> None:
    """Make an engine record every statement of its connections in the record of their session.

    It uses the events of the dialect: those of a connection would cost every session that writes a tenth of its time.
    """
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(engine.sync_engine, name, _note_statement)


def _note_statement(cursor: Any, sql: str, *arguments: Any) -> None:
    context = arguments[-1]
    connection = context.root_connection
    record: TransactionRecord | None = connection.get_execution_options().get(RECORD)
    if record is None:
        return
    if record.streams and context.dialect.name != "sqlite":
        for stream in record.take_streams():  # a connection can send the rows of only one statement at a time
            stream.finish()
    if record.on_writer:
        require_open(connection, record)
        compiled = context.compiled
        record.note(effect_of(None if compiled is None else compiled.statement, sql))
    if cursor.server_side:
        record.streams.append(Stream(cursor, connection))
