"""Ranges of whole periods in UTC: pure functions, in minutes since 1970."""

from datetime import UTC, datetime

import msgspec

from latchkey.models.usage import DAY, HOUR, MINUTE
from latchkey.service.rule_error import RuleError
from latchkey.service.usage.shapes import By

LENGTHS: dict[By, int] = {"minute": MINUTE, "hour": HOUR, "day": DAY}
NAMES = {length: name for name, length in LENGTHS.items()}
DEFAULTS = {MINUTE: 60, HOUR: 24, DAY: 30}
"""The number of periods of a range without a start."""

MOST_PERIODS = 1500  # a day of minutes, two months of hours, four years of days


class Range(msgspec.Struct, frozen=True):
    """A range of whole periods."""

    start: int
    end: int
    """Not part of the range."""
    length: int
    """Of a period."""


def range_of(start: datetime | None, end: datetime | None, by: By, now: datetime) -> Range:
    """Return the range that was asked for.

    Raises:
        RuleError: it ends before it begins, or has too many periods. The path is the parameter.
    """
    length = LENGTHS[by]
    last = -(-minutes(end or now) // length) * length
    if end is None:
        last = (minutes(now) // length + 1) * length  # with the current period
    first = last - DEFAULTS[length] * length if start is None else int(minutes(start) // length) * length
    if first >= last:
        raise RuleError("the range ends before it begins", "from")
    if last - first > MOST_PERIODS * length:
        raise RuleError(f"the range has more than {MOST_PERIODS} periods: ask for a shorter one", "from")
    return Range(int(first), int(last), length)


def minutes(moment: datetime) -> float:
    """Return a time in minutes since 1970."""
    try:
        return moment.astimezone(UTC).timestamp() / 60
    except OverflowError:
        raise RuleError("the time is out of range in UTC", "from") from None


def moment_of(minute: int) -> datetime:
    """Return the time of a minute since 1970.

    Raises:
        RuleError: it is out of range.
    """
    try:
        return datetime.fromtimestamp(minute * 60, UTC)
    except (OverflowError, ValueError):
        raise RuleError("the time is out of range in UTC", "from") from None
