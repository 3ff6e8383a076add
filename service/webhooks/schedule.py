"""When a failed delivery is tried again: after pauses that grow, and vary by a quarter, until it is given up."""

import random

import msgspec

LONGEST_PAUSE_S = 6 * 60 * 60  # 6 hours
JITTER = 0.25


class Schedule(msgspec.Struct, frozen=True):
    """The pauses of a webhook."""

    first_pause_s: float
    give_up_s: float
    """How long a webhook may fail before the events that are older become dead."""

    def pause_s(self, failures: int) -> float:
        """Return the pause after a number of failures in a row, the first of which is 1."""
        doubled = self.first_pause_s * 2.0 ** min(failures - 1, 40)
        return min(doubled, LONGEST_PAUSE_S) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
