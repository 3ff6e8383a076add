"""Streams: rows that are read one after another from the server, over a connection that is held until the last row (R5).

`session.stream()`, `session.stream_scalars()`, `connection.stream()` and `yield_per` open one. While it is open, the
session keeps its connection; the time spent waiting for the client meanwhile is bounded
(`latchkey.middleware.session.SessionMiddleware`). If the connection is released before the last row was read, reading
further raises an error, where the drivers would end the rows as if they were complete.
"""

from typing import Any, NoReturn

from sqlalchemy import Connection

from latchkey.middleware.session_errors import StreamClosedError


class ClosedCursor:
    """A replacement for the driver's cursor of a closed stream, which raises an error when it is read."""

    description = None
    rowcount = -1

    async def close(self) -> None:
        """Do nothing."""

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
    """A server-side cursor, and the connection that it uses."""

    __slots__ = ("connection", "cursor")

    def __init__(self, cursor: Any, connection: Connection) -> None:
        self.cursor = cursor
        self.connection = connection

    @property
    def is_open(self) -> bool:
        """Return whether rows are unread: SQLAlchemy closes the cursor after the last one."""
        return self.cursor._cursor is not None  # noqa: SLF001 - there is no public way to ask

    def finish(self) -> None:
        """Close the stream and keep its connection usable; on MariaDB and MySQL its remaining rows are skipped."""
        self.cursor.close()
        self.disown()

    def abandon(self) -> None:
        """Close the stream together with its connection, which may have many rows left to send."""
        self.disown()
        if not self.connection.closed:
            self.connection.invalidate()

    def disown(self) -> None:
        """Make further reads raise `StreamClosedError`."""
        self.cursor._cursor = ClosedCursor()  # noqa: SLF001 - as above
