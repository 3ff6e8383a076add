"""A sliding window: at most so many units in any stretch of time of its length.

Units are kept in slices, a fiftieth of the window each, and each slice knows the moment of its last unit. All of
a slice counts until that last unit is a whole window old. So what counts is never too little, and a unit counts
at most a fiftieth of the window too long. Moments are whole microseconds since 1970.
"""

from models.limit import RateLimit

MICROSECONDS = 1_000_000
SLICES = 50  # a divisor of a million, so that a slice is a whole number of microseconds

Part = tuple[int, int]
"""The moment of the last unit of a slice, and how many units it has."""


class SlidingWindow:
    """What was spent of one limit.

    Args:
        rule: the limit.
        parts: what was spent, by slice, the oldest first; what has left the window is dropped.
        moment: now.
    """

    def __init__(self, rule: RateLimit, parts: list[Part], moment: int) -> None:
        self.limit = rule.limit
        self.window_s = rule.window_s
        self._length = rule.window_s * MICROSECONDS
        self._slice = self._length // SLICES
        self.parts = [(last, units) for last, units in parts if last + self._length > moment]
        self.used = sum(units for _, units in self.parts)

    def fits_at(self, cost: int) -> int:
        """Tell the moment from which `cost`, at most the limit, fits if nobody else spends; 0 when it fits now."""
        excess = self.used + cost - self.limit
        moment = 0
        for last, units in self.parts:
            if excess <= 0:
                break
            excess -= units
            moment = last + self._length
        return moment

    def spend(self, cost: int, moment: int) -> None:
        """Count units; `moment` is no earlier than any before."""
        self.used += cost
        if self.parts and self._same_slice(self.parts[-1][0], moment):
            cost += self.parts.pop()[1]
        self.parts.append((moment, cost))

    def give_back(self, cost: int, moment: int) -> None:
        """Take back what was counted at a moment; what has left the window has come back by itself."""
        for place, (last, units) in enumerate(self.parts):
            if self._same_slice(last, moment):
                self.used -= min(cost, units)
                self.parts[place : place + 1] = [(last, units - cost)] if units > cost else []
                return

    def _same_slice(self, one: int, other: int) -> bool:
        return one // self._slice == other // self._slice

    @property
    def eases_at(self) -> int | None:
        """The moment at which the first of what counts leaves the window; None when nothing counts."""
        return self.parts[0][0] + self._length if self.parts else None

    @property
    def ends_at(self) -> int:
        """The moment from which nothing of it counts."""
        return self.parts[-1][0] + self._length if self.parts else 0
