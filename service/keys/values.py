"""The rules for the values of a key: pure functions that return the stored form, or raise `RuleError`."""

from collections.abc import Sequence
from datetime import UTC, datetime

from latchkey.service import clock
from latchkey.service.networks import parse_networks
from latchkey.service.rule_error import RuleError


def canonical_networks(texts: Sequence[str]) -> tuple[str, ...]:
    """Return networks in their canonical form.

    Raises:
        NetworkError: as `parse_networks`.
    """
    return tuple(str(network) for network in parse_networks(texts))


def future_utc(moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        RuleError: the time has passed, or is out of range in UTC.
    """
    moment = in_utc(moment)
    if moment <= clock.now():
        raise RuleError("the time has passed")
    return moment


def in_utc(moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        RuleError: the time is out of range there.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise RuleError("the time is out of range in UTC") from None
