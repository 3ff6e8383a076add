"""The rules for the values of a key: pure functions that return the stored form, or raise `InvalidValueError`."""

from collections.abc import Sequence
from datetime import UTC, datetime

from latchkey.service.invalid_value import InvalidValueError
from latchkey.service.networks import parse_networks


def canonical_networks(texts: Sequence[str]) -> tuple[str, ...]:
    """Return networks in their canonical form.

    Raises:
        NetworkError: as `parse_networks`.
    """
    return tuple(str(network) for network in parse_networks(texts))


def future_utc(moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        InvalidValueError: the time has passed, or is out of range in UTC.
    """
    moment = in_utc(moment)
    if moment <= datetime.now(UTC):
        raise InvalidValueError("the moment has passed")
    return moment


def in_utc(moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        InvalidValueError: the time is out of range there.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidValueError("the moment is out of range in UTC") from None
