"""The connection of the SQLite driver, which is always closed by its thread."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import aiosqlite
from sqlalchemy import Connection as SyncConnection

# The disk is full or has a fault, there is no memory; the file cannot be opened, written or locked, or is damaged.
FAULTS = (
    *("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"),
    *("SQLITE_PROTOCOL", "SQLITE_NOLFS", "SQLITE_CORRUPT", "SQLITE_NOTADB"),
)  # fmt: skip
FETCHED_AT_ONCE = 64  # rows, aiosqlite's default, while a cursor is iterated over


class RollingBackConnection(sqlite3.Connection):
    """A connection that rolls back before it closes.

    When a request is cancelled in the middle of an INSERT … RETURNING, closing alone leaves the write
    lock with the unfinished statement until the garbage collector finds it, and every writer waits.
    """

    _closed = False

    def close(self) -> None:
        """Roll back an open transaction, then close; the driver calls this twice."""
        if not self._closed and self.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # a failed rollback must not keep the connection open
                self.rollback()
        super().close()
        self._closed = True


class Connection(aiosqlite.Connection):
    """A connection whose thread closes what it has opened before it ends.

    aiosqlite 0.22 loses a connection when the task that awaits its opening is cancelled: the thread opens it, and the
    result is dropped. Closing a connection that is being closed fails, or waits for a thread that has ended. Here closing
    is one request to the thread, which is made once and cannot be undone by a cancellation.
    """

    def __init__(self, database: str, **arguments: Any) -> None:
        """Store the arguments of `sqlite3.connect`; nothing is opened until the connection is awaited."""
        opened: list[sqlite3.Connection] = []

        def connect() -> sqlite3.Connection:
            try:
                opened.append(sqlite3.connect(database, **arguments))
            except sqlite3.Error as error:
                name_file(error, database)
                raise
            return opened[0]

        super().__init__(connect, FETCHED_AT_ONCE)
        # A daemon thread, so that a forgotten connection does not keep the process running.
        self._thread = Thread(target=_work, args=(self._thread.run, opened), daemon=True)

    async def close(self) -> None:
        """Close after all work that the thread was given, and wait for it; further calls do nothing."""
        ended = self.stop()
        if ended is not None:
            await ended

    def stop(self) -> asyncio.Future[Any] | None:
        """Close as `close` does, without waiting.

        Returns:
            A future that completes when the thread ends, or None if it was stopped before.
        """
        return super().stop() if self._running else None


def name_file(error: BaseException, database: str) -> None:
    """Add the file, and the reason if it is known, to the message of an error that occurred while the file was opened."""
    path = Path(database).absolute()
    error.args = (f"{error}: {path}{reason_of(path)}", *error.args[1:])


def reason_of(path: Path) -> str:
    """Return why a database file cannot be opened, as the end of a sentence; nothing if it is not known.

    The file is not opened: closing it would release the locks that this process holds on it.
    """
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    if path.is_dir():
        return " (it is a folder)"
    if not os.access(path if path.exists() else path.parent, os.R_OK | os.W_OK):
        return " (permission denied)"
    return ""


def is_busy(error: BaseException | None) -> bool:
    """Return whether the wait for the single writer timed out."""
    return str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_BUSY")


def is_read_only(error: BaseException | None) -> bool:
    """Return whether a connection cannot write, because of its file or of the permissions when it was opened."""
    return str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_READONLY")


def is_unavailable(error: BaseException | None) -> bool:
    """Return whether the file or its disk has a fault, so that the same call may succeed later."""
    return str(getattr(error, "sqlite_errorname", "")).startswith(FAULTS)


def count_orphans(connection: SyncConnection) -> int:
    """Return how many rows refer to a row that does not exist; 0 on a server, which checks each statement."""
    if connection.dialect.name != "sqlite":
        return 0
    return len(connection.exec_driver_sql("PRAGMA foreign_key_check").all())


def _work(run: Callable[[], None], opened: list[sqlite3.Connection]) -> None:
    """Run the driver's thread, then close connections that are still open."""
    try:
        # After the loop is closed the driver's thread cannot deliver its results, and ends with this error.
        with contextlib.suppress(RuntimeError):
            run()
    finally:
        for connection in opened:
            connection.close()
