"""Failed authentications of the last minute, counted in the memory of this worker.

Failures are counted for each pair of an address and an access key. Counted by access key alone, anybody could lock a
partner out by failing in its name. Counted by address alone, one partner could lock out all others behind the same
proxy.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from latchkey.service.networks import Address

MINUTE_S = 60
LARGEST_MEMORY = 10_000  # pairs; each holds at most one number for each second of the minute

Pair = tuple[Address | None, str]

UNKNOWN_KEYS = "*"  # in place of an access key: counts all calls with access keys that do not exist
UNKNOWN_KEYS_FACTOR = 10  # wider than the limit of a pair, since callers behind one proxy share an address


class Failures:
    """Counts the failures of pairs over a sliding minute.

    Failures are counted for each second, and a second is dropped when all of it is more than a minute ago. A pair may
    therefore wait up to one second longer than necessary, but never less than necessary.

    Args:
        limit: the number of failures of a pair in a minute that are too many; 0 counts nothing.
        clock: a monotonic clock, in seconds.
        memory: the maximum number of pairs; beyond it, the pair whose last failure is oldest is dropped.
    """

    def __init__(
        self, limit: int, *, clock: Callable[[], float] = time.monotonic, memory: int = LARGEST_MEMORY
    ) -> None:
        self.limit = limit
        self.clock = clock
        self.memory = memory
        self._pairs: OrderedDict[Pair, dict[int, int]] = OrderedDict()
        self._proved: OrderedDict[Pair, None] = OrderedDict()

    def __bool__(self) -> bool:
        """Return whether any pair is remembered."""
        return bool(self._pairs)

    def note(self, pair: Pair) -> None:
        """Count one failure of a pair."""
        if not self.limit:
            return
        now = self.clock()
        seconds = self._remembered(pair, now)
        seconds[math.floor(now)] = seconds.get(math.floor(now), 0) + 1
        self._pairs[pair] = seconds
        self._pairs.move_to_end(pair)
        if len(self._pairs) > self.memory:
            self._pairs.popitem(last=False)

    def note_unknown(self, address: Address | None) -> None:
        """Count one call from an address that named an access key which does not exist."""
        self.note((address, UNKNOWN_KEYS))

    def note_success(self, pair: Pair) -> None:
        """Remember that a pair authenticated: failures of other callers at the same address no longer refuse it."""
        if not self.limit:
            return
        self._proved[pair] = None
        self._proved.move_to_end(pair)
        if len(self._proved) > self.memory:
            self._proved.popitem(last=False)

    def wait_s(self, pair: Pair) -> int:
        """Return the number of seconds until the pair may try again; 0 means at once."""
        wait_s = self._wait_s(pair, self.limit)
        # Bearer tokens carry no access key, and are counted together already.
        if not wait_s and pair[1] and pair not in self._proved:
            wait_s = self._wait_s((pair[0], UNKNOWN_KEYS), self.limit * UNKNOWN_KEYS_FACTOR)
        return wait_s

    def _wait_s(self, pair: Pair, limit: int) -> int:
        if pair not in self._pairs:
            return 0
        now = self.clock()
        seconds = self._remembered(pair, now)
        left, free_at = sum(seconds.values()), now
        for second, count in seconds.items():
            if left < limit:
                break
            left -= count
            free_at = second + 1 + MINUTE_S
        return math.ceil(free_at - now)

    def _remembered(self, pair: Pair, now: float) -> dict[int, int]:
        """Return the failures of the last minute by their second, oldest first."""
        seconds = self._pairs.get(pair, {})
        return {second: count for second, count in seconds.items() if second + 1 + MINUTE_S > now}
