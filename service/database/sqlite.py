"""The connection of the SQLite driver, which its thread closes on every way out."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from threading import Thread
from typing import Any

import aiosqlite

FETCHED_AT_ONCE = 64  # rows, aiosqlite's own default, while a cursor is iterated over


class RollingBackConnection(sqlite3.Connection):
    """A connection that rolls back before it closes.

    When a request is cancelled in the middle of an INSERT … RETURNING, closing alone leaves the write
    lock with the unfinished statement until the garbage collector finds it, and every writer waits.
    """

    _closed = False

    def close(self) -> None:
        """Roll back what is open, then close; the driver does it twice."""
        if not self._closed and self.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # a rollback that fails is no reason to stay open
                self.rollback()
        super().close()
        self._closed = True


class Connection(aiosqlite.Connection):
    """A connection whose thread closes, before it ends, what it has opened.

    aiosqlite 0.22 loses a connection when the task that waits for its opening is cancelled: the thread opens it,
    and nobody keeps the result. Closing one that is being closed fails, or waits for a thread that has ended.
    Here closing is one request to the thread, which is made once and is not undone by a cancellation.
    """

    def __init__(self, database: str, **arguments: Any) -> None:
        """Take the arguments of `sqlite3.connect`. Nothing is opened until the connection is awaited."""
        opened: list[sqlite3.Connection] = []

        def connect() -> sqlite3.Connection:
            opened.append(sqlite3.connect(database, **arguments))
            return opened[0]

        super().__init__(connect, FETCHED_AT_ONCE)
        # A daemon, so that a connection which was forgotten does not keep the process from its end.
        self._thread = Thread(target=_work, args=(self._thread.run, opened), daemon=True)

    async def close(self) -> None:
        """Close after what the thread has been given to do, and wait for it. Once is enough."""
        ended = self.stop()
        if ended is not None:
            await ended

    def stop(self) -> asyncio.Future[Any] | None:
        """Close likewise, without waiting.

        Returns:
            What ends with the thread, or None if the thread was told before.
        """
        return super().stop() if self._running else None


def _work(run: Callable[[], None], opened: list[sqlite3.Connection]) -> None:
    """Do what the driver's thread does, then close what is left open."""
    try:
        # The results of a loop that is closed have no reader, and the driver's thread ends with this error.
        with contextlib.suppress(RuntimeError):
            run()
    finally:
        for connection in opened:
            connection.close()
