"""A calendar quota: a number of units per day or month in UTC. Times are microseconds since 1970."""

from datetime import UTC, datetime, timedelta

from latchkey.models.limit import Quota
from latchkey.service.limits.window import MICROSECONDS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LONGER_THAN_A_MONTH = timedelta(days=31)


class Period:
    """The units spent under a quota.

    Args:
        rule: the quota.
        start: the start of the period in which `used` was spent; units of an earlier period no longer count.
        used: units.
        moment: the current time.
    """

    def __init__(self, rule: Quota, start: int, used: int, moment: int) -> None:
        self.limit = rule.limit
        self.start, self.end = bounds(rule, moment)
        self.used = used if start == self.start else 0

    @property
    def window_s(self) -> int:
        """The length of the period, in seconds."""
        return (self.end - self.start) // MICROSECONDS

    def fits_at(self, cost: int) -> int:
        """Return the time from which `cost`, at most the limit, fits if nothing else is spent; 0 when it fits now."""
        return self.end if self.used + cost > self.limit else 0

    def spend(self, cost: int, moment: int) -> None:  # noqa: ARG002 - as of a window, whose moment matters
        """Add units."""
        self.used += cost

    def refund(self, cost: int, moment: int) -> None:
        """Remove units that were added at a given time, unless that period is over."""
        if self.start <= moment < self.end:
            self.used = max(0, self.used - cost)

    @property
    def eases_at(self) -> int | None:
        """The end of the period."""
        return self.end

    @property
    def ends_at(self) -> int:
        """The time from which none of its units count."""
        return self.end if self.used else 0


def bounds(rule: Quota, moment: int) -> tuple[int, int]:
    """Return the start and the end of the period that contains a time."""
    day = from_microseconds(moment).replace(hour=0, minute=0, second=0, microsecond=0)
    if rule.per == "day":
        return to_microseconds(day), to_microseconds(day + timedelta(days=1))
    first = day.replace(day=1)
    return to_microseconds(first), to_microseconds((first + LONGER_THAN_A_MONTH).replace(day=1))


def to_microseconds(moment: datetime) -> int:
    """Return exact microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(moment: int) -> datetime:
    """Return the UTC time of microseconds since 1970."""
    return EPOCH + moment * MICROSECOND
