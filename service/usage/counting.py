"""Count calls in the memory of a worker, and flush them every few seconds.

Memory is bounded, also while the database is away: when half of it is used, further calls are counted by hour in place of
minute, and when all of it is used, without their key and series. No call is left out.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from starlette.types import Scope

from latchkey.models.usage import NO_KEY
from latchkey.service.clock import unix_s
from latchkey.service.database.conflicts import log_failure
from latchkey.service.router import ConvertedRoute
from latchkey.service.usage.series import ANYTHING, UNKNOWN_ROUTE, Series
from latchkey.service.usage.state import usage_state
from latchkey.service.usage.store import Batch, Cell, Store

log = logging.getLogger("latchkey.usage")

MOST_CELLS = 50_000  # some 20 MB; a batch that could not be written takes as much again
MINUTE_S = 60
HOUR_MIN = 60


class Usage:
    """The calls that this worker has counted and not yet written.

    Args:
        store: writes them.
        flush_s: the time between two flushes.
        clock: returns unix seconds.
    """

    def __init__(self, store: Store, *, flush_s: float, clock: Callable[[], float] = unix_s) -> None:
        self.store = store
        self.flush_s = flush_s
        self.clock = clock
        self._live: dict[Cell, list[int]] = {}
        self._pending: Batch | None = None
        self._number = 0
        self._flushing = asyncio.Lock()

    def note_answer(self, scope: Scope, status: int) -> None:
        """Count a call to this service, just before its response is sent."""
        state = usage_state(scope)
        route = state.get("counted_as") or route_of(scope)
        self.note(
            state.get("key_id", NO_KEY),
            Series(route, status, state.get("problem_code", "")),
            state.get("units", 0),
        )

    def note(self, key_id: int, series: Series, units: int) -> None:
        """Count one call, and the units that it was charged."""
        cell = int(self.clock()) // MINUTE_S, key_id, series
        count = self._live.get(cell)
        if count is None:
            count = self._new_count(cell)
        count[0] += 1
        count[1] += units

    def _new_count(self, cell: Cell) -> list[int]:
        """Return the count for a new cell; beyond the bounds, that of a coarser one."""
        used = len(self._live)
        if used >= MOST_CELLS // 2:
            minute, key_id, series = cell
            hour = minute - minute % HOUR_MIN
            is_full = used >= MOST_CELLS and (hour, key_id, series) not in self._live
            cell = (hour, NO_KEY, ANYTHING) if is_full else (hour, key_id, series)
        return self._live.setdefault(cell, [0, 0])

    async def flush(self) -> None:
        """Write what was counted; a batch that fails is kept and sent again with its number, before any other."""
        async with self._flushing:
            await self._write_pending()
            if self._live:
                self._number += 1
                self._pending, self._live = Batch(self._number, self._live), {}
                await self._write_pending()

    async def _write_pending(self) -> None:
        if self._pending is not None:
            await self.store.write(self._pending)
            self._pending = None

    async def flush_for_ever(self) -> None:
        """Flush every few seconds until cancelled."""
        while True:
            await asyncio.sleep(self.flush_s)
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001 - it is logged, and tried again
                log_failure(log, "usage could not be written; trying again", error)


def route_of(scope: Scope) -> str:
    """Return the method and the path template of the route of a request, or `UNKNOWN_ROUTE`."""
    route = scope.get("route")
    # An application that mounts this one has routes of its own.
    if not isinstance(route, ConvertedRoute) or (route.methods and scope["method"] not in route.methods):
        return UNKNOWN_ROUTE
    return route.label


def joined_tags(tags: Iterable[str]) -> str:
    """Return tags in the form of a series."""
    return " ".join(sorted(set(tags)))
