"""The credits of a key: units that are spent once, and filled up at the start of a period if they have a refill.

The refill is computed when the credits are read, from the clock of the database; nothing has to run at that time.
Times are microseconds since 1970.
"""

from datetime import UTC, datetime

import msgspec

from latchkey.models.limit import MOST_CREDITS, Credits, Quota, Refill
from latchkey.service.limits.period import bounds, to_microseconds
from latchkey.service.limits.window import MICROSECONDS

CREDITS_NAME = "credits"
"""The name of the credits among the rules; no limit may use it."""

NEVER = to_microseconds(datetime(9999, 12, 31, tzinfo=UTC))


class StoredCredits(msgspec.Struct, array_like=True, frozen=True):
    """The stored form of a balance; `start` is that of the period whose refill is included."""

    remaining: int
    start: int
    amount: int
    """Of the refill; 0 without one."""
    every: str


class Balance:
    """The remaining credits, with the refill of the current period.

    Args:
        stored: the result of `stored`; None when there are no credits, as for a key whose counter was lost.
        moment: the current time.
    """

    def __init__(self, stored: StoredCredits | None, moment: int) -> None:
        stored = stored or StoredCredits(0, 0, 0, "day")
        self.remaining = stored.remaining
        self.refill = refill_of(stored)
        self._start, self._end = 0, NEVER
        if self.refill is not None:
            self._start, self._end = bounds(Quota(limit=self.refill.amount, per=self.refill.every), moment)
            if stored.start < self._start:
                self.remaining = max(self.remaining, self.refill.amount)

    @classmethod
    def new(cls, credits: Credits, moment: int) -> "Balance":
        """Return new credits; their first refill is that of the next period."""
        refill = credits.refill
        amount, every = (0, "day") if refill is None else (refill.amount, refill.every)
        return cls(StoredCredits(credits.remaining, moment, amount, every), moment)

    @property
    def stored(self) -> StoredCredits:
        """The stored form."""
        if self.refill is None:
            return StoredCredits(self.remaining, 0, 0, "day")
        return StoredCredits(self.remaining, self._start, self.refill.amount, self.refill.every)

    @property
    def credits(self) -> Credits:
        """The credits as the endpoints return them."""
        return Credits(remaining=self.remaining, refill=self.refill)

    @property
    def limit(self) -> int:
        """The largest cost that fits now or after a refill."""
        return self.remaining if self.refill is None else max(self.remaining, self.refill.amount)

    @property
    def used(self) -> int:
        """The difference between the limit and the remaining credits."""
        return self.limit - self.remaining

    @property
    def window_s(self) -> int:
        """The length of the period, in seconds; 0 without a refill."""
        return 0 if self.refill is None else (self._end - self._start) // MICROSECONDS

    def fits_at(self, cost: int) -> int:
        """Return the time from which `cost`, at most the limit, fits if nothing else is spent; 0 when it fits now."""
        return 0 if cost <= self.remaining else self._end

    def spend(self, cost: int, moment: int) -> None:  # noqa: ARG002 - as of a window, whose moment matters
        """Remove credits."""
        self.remaining -= cost

    def refund(self, cost: int, moment: int) -> None:
        """Give back credits that were spent at a given time, unless a refill followed."""
        if moment >= self._start:
            self.remaining = min(self.remaining + cost, MOST_CREDITS)

    @property
    def eases_at(self) -> int | None:
        """The time of the next refill; None when it would add nothing."""
        return self._end if self.used else None

    @property
    def ends_at(self) -> int:
        """Credits do not expire."""
        return NEVER


def refill_of(stored: StoredCredits) -> Refill | None:
    """Return the refill of stored credits."""
    if not stored.amount:
        return None
    return msgspec.convert({"amount": stored.amount, "every": stored.every}, Refill)
