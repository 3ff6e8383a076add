"""What one subject has spent of all its rules, and what of a call fits: pure, with the clock handed in."""

import math
from collections.abc import Sequence
from typing import Protocol

import msgspec

from service.limits.account import Account
from service.limits.period import Period
from service.limits.window import MICROSECONDS, Part, SlidingWindow

QUOTA = "quota"
"""The name of every quota; no limit may have it."""


class Counter(Protocol):
    """What a window and a period have in common."""

    limit: int
    used: int

    @property
    def window_s(self) -> int: ...
    @property
    def eases_at(self) -> int | None: ...
    @property
    def ends_at(self) -> int: ...
    def fits_at(self, cost: int) -> int: ...
    def spend(self, cost: int, moment: int) -> None: ...
    def give_back(self, cost: int, moment: int) -> None: ...


class Figure(msgspec.Struct, frozen=True):
    """How one rule stands."""

    name: str
    limit: int
    window_s: int
    remaining: int
    eases_in_s: int | None
    """When something of what counts will not count any more; None when nothing counts."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a call does not fit."""

    rule: str
    is_quota: bool
    limit: int
    window_s: int
    wait_s: int | None
    """After so many seconds it fits, if nobody else spends, and not a second before; None is never."""


class WindowState(msgspec.Struct, array_like=True, frozen=True):
    """A window, as it is stored."""

    name: str
    window_s: int
    parts: list[Part]


class State(msgspec.Struct, array_like=True, frozen=True):
    """A ledger, as it is stored; `start` and `used` are of the quota's period `per`."""

    moment: int
    windows: list[WindowState]
    per: str
    start: int
    used: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


class Ledger:
    """The counters of one subject at one moment.

    What was counted is kept for a rule of the same name and window, or the same kind of period, whatever its
    limit is now; any other rule begins anew.

    Args:
        account: whose it is, and its rules.
        stored: what `encode` gave, None for whoever has spent nothing.
        clock: microseconds since 1970. A clock that stepped back does not bring back what was spent: counted
            is at the latest moment that was ever seen, while waits are counted from the clock.
    """

    def __init__(self, account: Account, stored: bytes | None, clock: int) -> None:
        state = _decoder.decode(stored) if stored else State(clock, [], "", 0, 0)
        self.account = account
        self.clock = clock
        self.moment = max(clock, state.moment)
        kept = {(one.name, one.window_s): one.parts for one in state.windows}
        self._windows = {
            rule.name: SlidingWindow(rule, kept.get((rule.name, rule.window_s), []), self.moment)
            for rule in account.limits
        }
        self._period: Period | None = None
        if account.quota is not None:
            same = state.per == account.quota.per
            self._period = Period(account.quota, state.start if same else -1, state.used, self.moment)
        self.counters: dict[str, Counter] = {**self._windows}
        if self._period is not None:
            self.counters[QUOTA] = self._period

    def refusal(self, cost: int) -> Refusal | None:
        """Tell why a call does not fit, by the rule for which it waits the longest; None when it fits."""
        found: Refusal | None = None
        longest = 0
        for name, counter in self.counters.items():
            above = cost > counter.limit
            fits_at = 0 if above else counter.fits_at(cost)
            if above or fits_at > longest:
                longest = fits_at
                found = Refusal(
                    self.account.prefix + name,
                    name == QUOTA,
                    counter.limit,
                    counter.window_s,
                    None if above else self._seconds_until(fits_at),
                )
            if above:
                break
        return found

    def spend(self, cost: int) -> None:
        """Count a call that fits."""
        for counter in self.counters.values():
            counter.spend(cost, self.moment)

    def give_back(self, cost: int, moment: int) -> None:
        """Take back a call that was counted at a moment of this ledger."""
        for counter in self.counters.values():
            counter.give_back(cost, moment)

    def figures(self) -> tuple[Figure, ...]:
        """Tell how each rule stands."""
        return tuple(
            Figure(
                self.account.prefix + name,
                counter.limit,
                counter.window_s,
                max(0, counter.limit - counter.used),
                None if counter.eases_at is None else self._seconds_until(counter.eases_at),
            )
            for name, counter in self.counters.items()
        )

    def encode(self) -> bytes:
        """Write it for the next one."""
        period, quota = self._period, self.account.quota
        return _encoder.encode(
            State(
                self.moment,
                [WindowState(name, one.window_s, one.parts) for name, one in self._windows.items()],
                "" if quota is None else quota.per,
                0 if period is None else period.start,
                0 if period is None else period.used,
            )
        )

    @property
    def expires_at(self) -> int:
        """The moment from which nothing in it counts."""
        return max([self.moment, *(counter.ends_at for counter in self.counters.values())])

    def _seconds_until(self, moment: int) -> int:
        return -((self.clock - moment) // MICROSECONDS)  # rounded up


def charge(ledgers: Sequence[Ledger], cost: int) -> Refusal | None:
    """Count a call in all ledgers, or in none; a refusal is that with the longest wait."""
    refusals = [refused for one in ledgers if (refused := one.refusal(cost)) is not None]
    if refusals:
        return max(refusals, key=lambda refused: math.inf if refused.wait_s is None else refused.wait_s)
    for ledger in ledgers:
        ledger.spend(cost)
    return None
