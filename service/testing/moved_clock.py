"""A clock that a test moves: that of the process, and that of the database.

The process reads its time from `latchkey.service.clock`. The database's time is moved for the connections of the process:
a server has a variable for it in each session, and in SQLite's functions `now` gets a modifier.
"""

import re
import time
from datetime import datetime, timedelta
from typing import Any

import aiosqlite
import pytest
from asyncmy.constants.COMMAND import COM_STMT_CLOSE

from latchkey.service import clock as process_clock
from latchkey.service.database.driver import Connection
from latchkey.service.testing.wire import CountingConnection

NOW_ON_SQLITE = re.compile(r"'now'|\bCURRENT_TIMESTAMP\b")


class Clock:
    """The clock of the application and of its database. Each test begins at the right time.

    `move` lets time pass: keys and secrets expire, signatures and idempotency keys become too old, windows of limits end,
    and credits are refilled. A client of the plugin signs at the new time, and the database sets `created_at` to it.

    What measures a duration does not notice it: timeouts, the key cache, and the count of failed authentications. Neither
    does Redis, nor another process.
    """

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """Return the time of the application, in UTC."""
        return process_clock.now()

    def move(self, by: timedelta) -> None:
        """Let time pass at once.

        Raises:
            ValueError: the time is negative; a service never sees its time go back.
        """
        if by < timedelta(0):
            raise ValueError("time only moves forward: the next test begins at the right time again.")
        self._ahead += by

    def reset(self) -> None:
        """Return to the right time."""
        self._ahead = timedelta(0)

    @property
    def ahead_s(self) -> float:
        """How many seconds the clock is ahead."""
        return self._ahead.total_seconds()


def install(clock: Clock, patch: pytest.MonkeyPatch) -> type["MovedConnection"]:
    """Move the process and SQLite by a clock, and return the class of connections to a server that it moves."""
    patch.setattr(process_clock, "_read", lambda: time.time() + clock.ahead_s)

    def moving(run: Any) -> Any:
        async def run_moved(cursor: aiosqlite.Cursor, sql: str, parameters: Any = None) -> aiosqlite.Cursor:
            moved: aiosqlite.Cursor = await run(cursor, moved_on_sqlite(sql, clock.ahead_s), parameters)
            return moved

        return run_moved

    for name in ("execute", "executemany"):
        patch.setattr(aiosqlite.Cursor, name, moving(getattr(aiosqlite.Cursor, name)))

    class OfClock(MovedConnection):
        moved_by = clock

    return OfClock


def moved_on_sqlite(sql: str, ahead_s: float) -> str:
    """Return a statement whose current time is moved."""
    if not ahead_s:
        return sql
    moved = f"'now', '+{ahead_s:.6f} seconds'"
    return NOW_ON_SQLITE.sub(lambda found: moved if found[0] == "'now'" else f"datetime({moved})", sql)


class MovedConnection(CountingConnection):
    """A connection whose session has the time of a clock."""

    moved_by: Clock
    _is_moved = False
    _is_moving = False

    async def _execute_command(self, command: Any, sql: Any) -> Any:
        if self._is_moving:  # not counted: it is not a command of the application
            return await Connection._execute_command(self, command, sql)  # noqa: SLF001 - its own
        if command != COM_STMT_CLOSE and (self.moved_by.ahead_s or self._is_moved):
            await self._move()
        return await super()._execute_command(command, sql)

    async def _move(self) -> None:
        """Set the time of the session, which stands still until it is set again."""
        self._is_moved, self._is_moving = bool(self.moved_by.ahead_s), True
        try:
            moment = f"{process_clock.unix_s():.6f}" if self._is_moved else "DEFAULT"
            await self.query(f"SET timestamp = {moment}")  # type: ignore[no-untyped-call]
        finally:
            self._is_moving = False
