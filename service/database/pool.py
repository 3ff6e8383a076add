"""A connection pool that serves its waiters in order."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Any, Literal

import msgspec
from sqlalchemy import exc
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from latchkey.middleware.request_scope import RequestScope
from latchkey.service.database.bulkhead import Bulkhead

WAITERS_PER_CONNECTION = (
    100  # beyond this number a request is refused at once: it would wait longer than a client does
)
PAUSED_S = 0.1  # a timer that fires later than this means that the whole process was paused
LIMIT_REACHED = "3o7r"  # SQLAlchemy's code for an exhausted pool


class Waiter(msgspec.Struct, frozen=True, eq=False):
    """A request in the queue; `turn` is completed with a connection, or with None when the waiter may open one."""

    request_scope: RequestScope | None
    turn: asyncio.Future[ConnectionPoolEntry | None]


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool with a bounded queue: first come, first served.

    SQLAlchemy's pool makes a returned connection available to every caller before it wakes the first waiter. Under load
    newcomers overtake the waiters, and some of these wait until their timeout. Here a returned connection is handed to
    the first waiter, unless its compartment of the bulkhead is full: that waiter is passed over.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # SQLAlchemy names the logger after the module of the class; its users expect the messages of a pool here.
        self.logger = logging.getLogger("sqlalchemy.pool.FairPool")
        self._waiters: deque[Waiter] = deque()
        self._promised = 0  # connections that woken waiters are about to open
        self._bulkhead = Bulkhead(self.size())
        self._holders: dict[ConnectionPoolEntry, RequestScope | None] = {}

    def _do_get(self) -> ConnectionPoolEntry:
        request_scope = RequestScope.current()
        record = None
        # While a connection is available, all waiters belong to full compartments.
        if self._is_available and self._bulkhead.admits(request_scope):
            self._bulkhead.enter(request_scope)
        else:
            self._require_place(request_scope)
            if not in_greenlet():
                raise MissingGreenlet("a connection must be waited for")
            record = await_only(self._wait(request_scope))
            if record is None:
                self._promised -= 1
        try:
            record = record or super()._do_get()  # returns an idle connection, or opens one
        except BaseException:
            self._bulkhead.leave(request_scope)
            self._wake()
            raise
        self._holders[record] = request_scope
        return record

    @property
    def _is_available(self) -> bool:
        return self.checkedout() + self._promised < self.size()

    def _require_place(self, request_scope: RequestScope | None) -> None:
        """Raise an error if the queue, or the part of it that a compartment may take, is full."""
        if len(self._waiters) >= WAITERS_PER_CONNECTION * self.size() or not self._bulkhead.may_wait(
            request_scope, WAITERS_PER_CONNECTION
        ):
            raise exc.TimeoutError(
                f"{len(self._waiters)} callers are waiting for a connection already", code=LIMIT_REACHED
            )

    async def _wait(self, request_scope: RequestScope | None) -> ConnectionPoolEntry | None:
        """Return the connection that is handed to this waiter, or None when it may open one.

        Raises:
            sqlalchemy.exc.TimeoutError: no connection was returned in time.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[ConnectionPoolEntry | None] = loop.create_future()
        waiter = Waiter(request_scope, turn)
        self._waiters.append(waiter)
        self._bulkhead.begin_wait(request_scope)
        until = loop.time() + self.timeout()
        timer = loop.call_at(until, self._time_out, turn, until)
        try:
            return await turn
        except exc.TimeoutError:
            self._leave_queue(waiter)
            raise
        except asyncio.CancelledError:
            self._leave_queue(waiter)
            if not turn.cancelled() and turn.exception() is None:  # cancelled after it was given a connection
                self._pass_on(request_scope, turn.result())
            raise
        finally:
            self._bulkhead.end_wait(request_scope)
            timer.cancel()

    def waiting(self) -> int:
        """Return the number of callers that wait for a connection."""
        return len(self._waiters)

    def _leave_queue(self, waiter: Waiter) -> None:
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def _time_out(self, turn: "asyncio.Future[ConnectionPoolEntry | None]", until: float) -> None:
        """Refuse a waiter, after connections that were returned while the process was paused are handed over."""
        loop = turn.get_loop()
        if loop.time() - until > PAUSED_S:
            loop.call_later(PAUSED_S, self._give_up, turn)
        else:
            self._give_up(turn)

    def _give_up(self, turn: "asyncio.Future[ConnectionPoolEntry | None]") -> None:
        if not turn.done():
            turn.set_exception(
                exc.TimeoutError(
                    f"none of {self.size()} connections was returned within {self.timeout():.2f} s",
                    code=LIMIT_REACHED,
                )
            )

    def refuse_waiters(self) -> None:
        """Refuse all waiting requests, because the server does not respond."""
        for waiter in list(self._waiters):
            self._give_up(waiter.turn)

    def _pass_on(self, request_scope: RequestScope | None, record: ConnectionPoolEntry | None) -> None:
        self._bulkhead.leave(request_scope)
        if record is None:
            self._promised -= 1
            self._wake()
        else:
            self._do_return_conn(record)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._bulkhead.leave(self._holders.pop(record, None))
        if not self._hand_over(record):
            super()._do_return_conn(record)
        self._wake()

    def _dec_overflow(self) -> Literal[True]:
        """Count a connection that was closed, and let a waiter open another one."""
        super()._dec_overflow()
        self._wake()
        return True

    def _wake(self) -> None:
        """Give the available connections to the waiters."""
        while self._waiters and self._is_available and self._hand_over(None):
            self._promised += 1

    def _hand_over(self, record: ConnectionPoolEntry | None) -> bool:
        """Wake the first waiter whose compartments have room; return whether there was one."""
        for waiter in self._waiters:
            if not waiter.turn.done() and self._bulkhead.admits(waiter.request_scope):
                self._waiters.remove(waiter)
                self._bulkhead.enter(waiter.request_scope)
                waiter.turn.set_result(record)
                return True
        return False
