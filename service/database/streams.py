"""Streams: rows that are read one after another from the server, over a connection that they need until their end (R5).

`session.stream()`, `session.stream_scalars()`, `connection.stream()` and `yield_per` open one. As long as it is open
the session keeps its connection; while the client is waited for, the time of that is bounded
(`latchkey.middleware.session.SessionMiddleware`). When the connection goes before the last row was read, to read on
is an error, where the drivers would end the rows as if these had been all.
"""

from typing import Any, NoReturn

from sqlalchemy import Connection


class StreamClosedError(RuntimeError):
    """A stream was read on after its connection had gone: the rows so far are not all of them."""

    def __init__(self) -> None:
        super().__init__(
            "this stream of rows was closed before its last row was read: a commit, a rollback, the end of its "
            "session or, on MariaDB and MySQL, another statement of the session came first. Read the rows before, "
            "or open the stream in a block of its own, `async with db.scoped_session() as session`."
        )


class ClosedCursor:
    """Stand in for the driver's cursor of a stream that was closed: who reads on is told."""

    description = None
    rowcount = -1

    async def close(self) -> None:
        """Close nothing."""

    async def fetchone(self) -> NoReturn:
        """Raise `StreamClosedError`."""
        raise StreamClosedError

    async def fetchmany(self, size: int | None = None) -> NoReturn:  # noqa: ARG002 - as a cursor's
        """Raise `StreamClosedError`."""
        raise StreamClosedError

    fetchall = __anext__ = fetchone

    def __aiter__(self) -> "ClosedCursor":
        """Return itself."""
        return self


class Stream:
    """A server-side cursor, and the connection that it needs."""

    __slots__ = ("connection", "cursor")

    def __init__(self, cursor: Any, connection: Connection) -> None:
        self.cursor = cursor
        self.connection = connection

    @property
    def is_open(self) -> bool:
        """Not all rows were read: SQLAlchemy closes the cursor after the last one."""
        return self.cursor._cursor is not None  # noqa: SLF001 - there is no public way to ask

    def finish(self) -> None:
        """Close it, and leave its connection as good as before; on MariaDB and MySQL its other rows are passed over."""
        self.cursor.close()
        self.disown()

    def abandon(self) -> None:
        """Close it with its connection, which may have many rows left to send."""
        self.disown()
        if not self.connection.closed:
            self.connection.invalidate()

    def disown(self) -> None:
        """Have whoever reads on told."""
        self.cursor._cursor = ClosedCursor()  # noqa: SLF001 - as above
