"""UUIDs of version 7, which sort by their time (RFC 9562, section 5.7)."""

import secrets
from datetime import UTC, datetime
from uuid import UUID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RANDOM_BITS = 62
_VERSION = 7 << 76
_VARIANT = 0b10 << RANDOM_BITS


def uuid7(moment: datetime) -> UUID:
    """Return a new UUID of a time; its fraction of a millisecond is stored in 12 bits (section 6.2, method 3)."""
    return _uuid(moment, secrets.randbits(RANDOM_BITS))


def first_uuid7(moment: datetime) -> UUID:
    """Return the smallest UUID of a time; a time before 1970 counts as 1970."""
    return _uuid(moment, 0)


def _uuid(moment: datetime, random: int) -> UUID:
    since = max(moment, EPOCH) - EPOCH
    milliseconds, microseconds = divmod(since.microseconds, 1000)
    milliseconds += 1000 * (since.days * 86_400 + since.seconds)  # seconds of a day
    fraction = microseconds * 4096 // 1000
    return UUID(int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | random)
