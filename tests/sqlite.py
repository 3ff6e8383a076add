"""SQLite connections that are counted: before Python 3.13 there is no warning for one that is never closed."""

import asyncio
import threading
from typing import Any, ClassVar

from latchkey.service.database.sqlite import RollingBackConnection

PATIENCE_S = 5.0  # threads close their connections with a short delay


class WatchedConnection(RollingBackConnection):
    """A connection that is recorded until it is closed, with the thread that closed it."""

    still_open: ClassVar[list["WatchedConnection"]]
    closed_by: ClassVar[list[bool]]
    """For each connection that was closed, whether the thread that had opened it did so."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.thread = threading.get_ident()
        self.still_open.append(self)

    def close(self) -> None:
        super().close()
        if self in self.still_open:
            self.still_open.remove(self)
            self.closed_by.append(threading.get_ident() == self.thread)


def watched_connection() -> type[WatchedConnection]:
    """Return a new class for one test."""

    class OfOneTest(WatchedConnection):
        still_open: ClassVar[list[WatchedConnection]] = []
        closed_by: ClassVar[list[bool]] = []

    return OfOneTest


async def assert_closed(watched: type[WatchedConnection]) -> None:
    """Wait, for a bounded time, until each connection has been closed by its own thread."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while watched.still_open and loop.time() < deadline:
        await asyncio.sleep(0.001)
    assert watched.still_open == []
    assert all(watched.closed_by)
