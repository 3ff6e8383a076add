"""The clock of this process, for every time that is stored, or compared with one that is stored.

It can be moved in a team's own tests, see `latchkey.testing`. Durations are measured by monotonic clocks, which never move.
"""

import time
from datetime import UTC, datetime

_read = time.time


def unix_s() -> float:
    """Return the time in unix seconds."""
    return _read()


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.fromtimestamp(unix_s(), UTC)
