"""The log of requests that are refused before they reach the application."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger("latchkey.connections")

EVERY_S = 1.0  # many refusals produce one line each second


class Refusals:
    """Log refusals, at most one each second; a line states how many before it were not logged."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged = float("-inf")
        self._unlogged = 0

    def note(self, why: str, client: tuple[str, int] | None) -> None:
        """Log a refusal, or count it."""
        now = self._clock()
        if now - self._logged < EVERY_S:
            self._unlogged += 1
            return
        log.warning(
            "refused a connection from %s: %s (%d more since the line before)",
            client[0] if client else "an unknown address",
            why,
            self._unlogged,
        )
        self._logged, self._unlogged = now, 0
