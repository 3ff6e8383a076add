"""A quota of the calendar: at most so many units in a day or a month in UTC. Moments are microseconds since 1970."""

from datetime import UTC, datetime, timedelta

from models.limit import Quota
from service.limits.window import MICROSECONDS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LONGER_THAN_A_MONTH = timedelta(days=31)


class Period:
    """What was spent of a quota.

    Args:
        rule: the quota.
        start: of the period in which `used` was spent; of another one than now's, it counts no more.
        used: units.
        moment: now.
    """

    def __init__(self, rule: Quota, start: int, used: int, moment: int) -> None:
        self.limit = rule.limit
        self.start, self.end = bounds(rule, moment)
        self.used = used if start == self.start else 0

    @property
    def window_s(self) -> int:
        """How long the period is, in seconds."""
        return (self.end - self.start) // MICROSECONDS

    def fits_at(self, cost: int) -> int:
        """Tell the moment from which `cost`, at most the limit, fits if nobody else spends; 0 when it fits now."""
        return self.end if self.used + cost > self.limit else 0

    def spend(self, cost: int, moment: int) -> None:  # noqa: ARG002 - as of a window, whose moment matters
        """Count units."""
        self.used += cost

    def give_back(self, cost: int, moment: int) -> None:
        """Take back what was counted at a moment, unless its period is over."""
        if self.start <= moment < self.end:
            self.used = max(0, self.used - cost)

    @property
    def eases_at(self) -> int | None:
        """The end of the period."""
        return self.end

    @property
    def ends_at(self) -> int:
        """The moment from which nothing of it counts."""
        return self.end if self.used else 0


def bounds(rule: Quota, moment: int) -> tuple[int, int]:
    """Tell the first moment of the period that a moment is in, and the first after it."""
    day = from_microseconds(moment).replace(hour=0, minute=0, second=0, microsecond=0)
    if rule.per == "day":
        return to_microseconds(day), to_microseconds(day + timedelta(days=1))
    first = day.replace(day=1)
    return to_microseconds(first), to_microseconds((first + LONGER_THAN_A_MONTH).replace(day=1))


def to_microseconds(moment: datetime) -> int:
    """Count from 1970, exactly."""
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(moment: int) -> datetime:
    """Tell which moment in UTC this many microseconds are."""
    return EPOCH + moment * MICROSECOND
