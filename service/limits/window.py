"""A sliding window: a maximum number of units in any interval of its length.

Units are stored in slices of a fiftieth of the window, each with the time of its last unit. A slice counts as a whole
until its last unit is one window old. The count is therefore never too low, and a unit counts at most a fiftieth of
the window too long. Times are whole microseconds since 1970.
"""

from latchkey.models.limit import RateLimit

MICROSECONDS = 1_000_000
SLICES = 50  # a divisor of a million, so that a slice is a whole number of microseconds

WindowPart = tuple[int, int]
"""The time of the last unit of a slice, and its number of units."""


class SlidingWindow:
    """The units spent under one limit.

    Args:
        rule: the limit.
        parts: spent units by slice, oldest first; slices that have left the window are dropped.
        moment: the current time.
    """

    def __init__(self, rule: RateLimit, parts: list[WindowPart], moment: int) -> None:
        self.limit = rule.limit
        self.window_s = rule.window_s
        self._length = rule.window_s * MICROSECONDS
        self._slice = self._length // SLICES
        self.parts = [(last, units) for last, units in parts if last + self._length > moment]
        self.used = sum(units for _, units in self.parts)

    def fits_at(self, cost: int) -> int:
        """Return the time from which `cost`, at most the limit, fits if nothing else is spent; 0 when it fits now."""
        excess = self.used + cost - self.limit
        moment = 0
        for last, units in self.parts:
            if excess <= 0:
                break
            excess -= units
            moment = last + self._length
        return moment

    def spend(self, cost: int, moment: int) -> None:
        """Add units; `moment` is not earlier than any before."""
        self.used += cost
        if self.parts and self._same_slice(self.parts[-1][0], moment):
            cost += self.parts.pop()[1]
        self.parts.append((moment, cost))

    def refund(self, cost: int, moment: int) -> None:
        """Remove units that were added at a given time, unless they have left the window."""
        for place, (last, units) in enumerate(self.parts):
            if self._same_slice(last, moment):
                self.used -= min(cost, units)
                self.parts[place : place + 1] = [(last, units - cost)] if units > cost else []
                return

    def _same_slice(self, one: int, other: int) -> bool:
        return one // self._slice == other // self._slice

    @property
    def eases_at(self) -> int | None:
        """The time at which the first counted units leave the window; None when nothing counts."""
        return self.parts[0][0] + self._length if self.parts else None

    @property
    def ends_at(self) -> int:
        """The time from which none of its units count."""
        return self.parts[-1][0] + self._length if self.parts else 0
