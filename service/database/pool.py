"""A connection pool that serves its waiters in order."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Any, Literal

from sqlalchemy import exc
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only

WAITERS_PER_CONNECTION = (
    100  # beyond this number a request is refused at once: it would wait longer than a client does
)
LIMIT_REACHED = "3o7r"  # SQLAlchemy's code for an exhausted pool


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool with a bounded queue: first come, first served.

    SQLAlchemy's pool makes a returned connection available to every caller before it wakes the first waiter. Under load
    newcomers overtake the waiters, and some of these wait until their timeout. Here a returned connection is handed to
    the first waiter.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # SQLAlchemy names the logger after the module of the class; its users expect the messages of a pool here.
        self.logger = logging.getLogger("sqlalchemy.pool.FairPool")
        self._waiters: deque[asyncio.Future[ConnectionPoolEntry | None]] = deque()
        self._promised = 0  # connections that woken waiters are about to open

    def _do_get(self) -> ConnectionPoolEntry:
        if not self._waiters and self.checkedout() + self._promised < self.size():
            return super()._do_get()  # returns an idle connection, or opens one
        if len(self._waiters) >= WAITERS_PER_CONNECTION * self.size():
            raise exc.TimeoutError(
                f"{len(self._waiters)} callers are waiting for a connection already", code=LIMIT_REACHED
            )
        record = await_only(self._wait())
        if record is not None:
            return record
        self._promised -= 1
        return super()._do_get()

    async def _wait(self) -> ConnectionPoolEntry | None:
        """Return the connection that is handed to this waiter, or None when it may open one.

        Raises:
            sqlalchemy.exc.TimeoutError: no connection was returned in time.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[ConnectionPoolEntry | None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(self.timeout(), self._give_up, waiter)
        try:
            return await waiter
        except exc.TimeoutError:
            self._leave(waiter)
            raise
        except asyncio.CancelledError:
            self._leave(waiter)
            if (
                not waiter.cancelled() and waiter.exception() is None
            ):  # cancelled after it was given a connection
                self._pass_on(waiter.result())
            raise
        finally:
            timer.cancel()

    def _leave(self, waiter: asyncio.Future[ConnectionPoolEntry | None]) -> None:
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def _give_up(self, waiter: asyncio.Future[ConnectionPoolEntry | None]) -> None:
        if not waiter.done():
            waiter.set_exception(
                exc.TimeoutError(
                    f"none of {self.size()} connections was returned within {self.timeout():.2f} s",
                    code=LIMIT_REACHED,
                )
            )

    def _pass_on(self, record: ConnectionPoolEntry | None) -> None:
        if record is not None:
            self._do_return_conn(record)
        elif not self._hand_over(None):
            self._promised -= 1

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if not self._hand_over(record):
            super()._do_return_conn(record)

    def _dec_overflow(self) -> Literal[True]:
        """Count a connection that was closed, and let a waiter open another one."""
        super()._dec_overflow()
        if self._hand_over(None):
            self._promised += 1
        return True

    def _hand_over(self, record: ConnectionPoolEntry | None) -> bool:
        """Wake the first waiter; return whether there was one."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(record)
                return True
        return False
