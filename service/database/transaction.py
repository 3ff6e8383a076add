"""What a session has done in its transaction: one object, which ends with it (R4, R8, R10)."""

from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models.hooks import Changes, Wishes
from latchkey.service.database.statements import Effect, effect_of
from latchkey.service.database.streams import Stream

LOST_STATUS = "latchkey_lost_status"  # in a connection's info: an error packet carried no transaction flag
ENDED = "latchkey_ended"  # in a connection's info: the server said that it has ended the transaction
RECORD = "latchkey_record"  # the execution option by which a connection knows the record


class TransactionEndedError(RuntimeError):
    """The server ended a transaction in which something was written or locked; the rest would be half of it."""

    def __init__(self) -> None:
        super().__init__(
            "the transaction was ended by the server, so nothing of it is committed: run it again"
        )


class Level:
    """What was done in a transaction since its beginning, or since one of its SAVEPOINTs."""

    __slots__ = ("changes", "locked", "released", "unsure", "wrote")

    def __init__(self) -> None:
        self.roll_back()
        self.released = False  # a SAVEPOINT that is over, and kept

    def roll_back(self) -> None:
        """Forget what was done."""
        self.wrote = False
        self.locked = False
        self.unsure = False  # a statement that nobody could judge
        self.changes = Changes()

    def absorb(self, inner: "Level") -> None:
        """Take over what was done in a SAVEPOINT."""
        self.wrote = self.wrote or inner.wrote
        self.locked = self.locked or inner.locked
        self.unsure = self.unsure or inner.unsure
        self.changes.absorb(inner.changes)


class TransactionRecord:
    """What was written, flushed, locked and begun in one transaction of a session.

    It is there before the transaction begins, and a new one takes its place when that has ended, whatever ended it.
    A reader's connection that goes back between two statements ends no transaction in the eyes of a caller:
    `after_giving_back` is the record that goes on then.
    """

    __slots__ = (
        "began",
        "commit_sent",
        "levels",
        "on_writer",
        "sent_write",
        "statements",
        "streams",
        "wishes",
    )

    def __init__(self, *, began: bool = False, wishes: Wishes | None = None) -> None:
        self.began = began  # a plain session would be in a transaction
        self.on_writer = False
        self.statements = 0  # that were sent to the writer
        self.sent_write = False  # one of them writes, whatever became of it
        self.streams: list[Stream] = []  # that were opened
        self.commit_sent = False
        self.levels = [Level()]
        self.wishes: Wishes = {} if wishes is None else wishes  # about instances that are flushed next

    def after_giving_back(self) -> Self:
        """Return the record that follows when nothing but the connection has ended."""
        return type(self)(began=True, wishes=self.wishes)

    @property
    def wrote(self) -> bool:
        """A change was sent that has to be committed."""
        return any(level.wrote for level in self.levels)

    @property
    def only_read(self) -> bool:
        """Nothing would be lost if the transaction ended here."""
        return not any(level.wrote or level.locked or level.unsure for level in self.levels)

    @property
    def changes(self) -> Changes:
        """What has been flushed at the innermost level."""
        return self.levels[-1].changes

    @property
    def is_streaming(self) -> bool:
        """Rows of a stream were not read yet."""
        return bool(self.streams) and any(stream.is_open for stream in self.streams)

    def take_streams(self) -> list[Stream]:
        """Return the streams that are open, which somebody closes now."""
        taken, self.streams = [stream for stream in self.streams if stream.is_open], []
        return taken

    def note(self, effect: Effect) -> None:
        """Take note of a statement that is sent to the writer."""
        self.statements += 1
        level = self.levels[-1]
        if effect is Effect.WRITES:
            self.sent_write = level.wrote = True
        elif effect is Effect.LOCKS:
            level.locked = True
        elif effect is Effect.UNKNOWN:
            level.unsure = True

    def begin_savepoint(self) -> None:
        """Begin a level."""
        self.levels.append(Level())

    def end_savepoint(self) -> None:
        """End the innermost level: what was done in it stays only if it was released."""
        ended = self.levels.pop()
        if ended.released:
            self.levels[-1].absorb(ended)

    def overlook(self) -> None:
        """Count what was written until now as no change that anybody would miss; it stays open like a lock."""
        for level in self.levels:
            level.locked = level.locked or level.wrote
            level.wrote = False


def require_open(connection: Any, record: TransactionRecord) -> None:
    """Refuse to go on in a transaction that is not open any more (R4).

    Every answer of MariaDB and MySQL carries a flag that says whether a transaction is open, so asking costs no round
    trip. After an error the flag may be stale, and is not asked.

    Raises:
        TransactionEndedError: something was written or locked in it before.
    """
    if not (record.sent_write or any(level.locked for level in record.levels)):
        return
    if connection.info.get(ENDED):
        raise TransactionEndedError
    is_open = getattr(connection.connection.driver_connection, "get_transaction_status", None)
    if is_open is not None and not connection.info.get(LOST_STATUS) and not is_open():
        raise TransactionEndedError


def keep_records(engine: AsyncEngine) -> None:
    """Have an engine note what its connections send, by whatever way, in the record of their session.

    By the events of its dialect: those of a connection cost every session that writes a tenth of its time.
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
        for stream in record.take_streams():  # a connection carries the rows of one statement
            stream.finish()
    if record.on_writer:
        require_open(connection, record)
        compiled = context.compiled
        record.note(effect_of(None if compiled is None else compiled.statement, sql))
    if cursor.server_side:
        record.streams.append(Stream(cursor, connection))
