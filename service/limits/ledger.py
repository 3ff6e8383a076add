"""What one subject has spent under all its rules, and whether a call fits. Pure: the clock is an argument."""

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from latchkey.models.limit import Credits
from latchkey.service.limits.account import Account
from latchkey.service.limits.balance import CREDITS_NAME, Balance, StoredCredits
from latchkey.service.limits.period import Period
from latchkey.service.limits.window import MICROSECONDS, SlidingWindow, WindowPart

QUOTA_NAME = "quota"
"""The name of every quota; no limit may use it."""

Kind = Literal["limit", "quota", "credits"]
"""The kind of a rule."""


class Counter(Protocol):
    """The common interface of a window, a period and a balance."""

    @property
    def limit(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def window_s(self) -> int: ...
    @property
    def eases_at(self) -> int | None: ...
    @property
    def ends_at(self) -> int: ...
    def fits_at(self, cost: int) -> int: ...
    def spend(self, cost: int, moment: int) -> None: ...
    def refund(self, cost: int, moment: int) -> None: ...


class Figure(msgspec.Struct, frozen=True):
    """The current state of one rule."""

    name: str
    limit: int
    window_s: int
    remaining: int
    eases_in_s: int | None
    """Seconds until some of the spent units no longer count; None when nothing counts."""
    credits: Credits | None = None
    """The credits as the endpoints return them, when the rule is that of the credits."""


class Refusal(msgspec.Struct, frozen=True):
    """The rule that a call exceeds."""

    rule: str
    kind: Kind
    limit: int
    window_s: int
    remaining: int
    """The units that are left."""
    wait_s: int | None
    """The number of seconds after which the call fits, if nothing else is spent; None means never."""


class WindowState(msgspec.Struct, array_like=True, frozen=True):
    """The stored form of a window."""

    name: str
    window_s: int
    parts: list[WindowPart]


class State(msgspec.Struct, array_like=True, frozen=True):
    """The stored form of a ledger; `start` and `used` belong to the quota's period `per`."""

    moment: int
    windows: list[WindowState]
    per: str
    start: int
    used: int
    credits: StoredCredits | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


class Ledger:
    """The counters of one subject at one moment.

    Spent units are kept for a rule of the same name and window, or the same kind of period, whatever its limit
    is now. Any other rule starts at zero. Stored credits are spent and kept even if the account does not state that it
    has credits, because a cached key may be older than they are.

    Args:
        account: the subject and its rules.
        stored: the result of `encode`; None when nothing was spent.
        clock: microseconds since 1970. A clock that steps back does not restore spent units: units are counted
            at the latest time ever seen, and waits are computed from the clock.
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
        self._balance: Balance | None = None
        if account.has_credits or state.credits is not None:
            self._balance = Balance(state.credits, self.moment)

    @property
    def counters(self) -> list[tuple[Kind, str, Counter]]:
        """The counters of all rules, each with the kind and the name of its rule."""
        found: list[tuple[Kind, str, Counter]] = [("limit", *one) for one in self._windows.items()]
        if self._period is not None:
            found.append(("quota", QUOTA_NAME, self._period))
        if self._balance is not None:
            found.append(("credits", CREDITS_NAME, self._balance))
        return found

    @property
    def period(self) -> Period | None:
        """The units spent under the quota; None without one."""
        return self._period

    @property
    def credits(self) -> Credits | None:
        """The remaining credits; None when there are none to spend from."""
        return None if self._balance is None else self._balance.credits

    def set_credits(self, credits: Credits | None) -> None:
        """Replace the credits; the first refill is that of the next period."""
        self._balance = None if credits is None else Balance.new(credits, self.moment)

    def refusal(self, cost: int) -> Refusal | None:
        """Return the exceeded rule with the longest wait; None when the call fits."""
        found: Refusal | None = None
        longest = 0
        for kind, name, counter in self.counters:
            above = cost > counter.limit
            fits_at = 0 if above else counter.fits_at(cost)
            if above or fits_at > longest:
                longest = fits_at
                found = Refusal(
                    self.account.prefix + name,
                    kind,
                    counter.limit,
                    counter.window_s,
                    max(0, counter.limit - counter.used),
                    None if above else self._seconds_until(fits_at),
                )
            if above:
                break
        return found

    def spend(self, cost: int) -> None:
        """Add a call that fits."""
        for _, _, counter in self.counters:
            counter.spend(cost, self.moment)

    def refund(self, cost: int, moment: int) -> None:
        """Remove a call that was added at `moment`."""
        for _, _, counter in self.counters:
            counter.refund(cost, moment)

    def figures(self) -> tuple[Figure, ...]:
        """Return the current state of each rule."""
        return tuple(
            Figure(
                self.account.prefix + name,
                counter.limit,
                counter.window_s,
                max(0, counter.limit - counter.used),
                None if counter.eases_at is None else self._seconds_until(counter.eases_at),
                counter.credits if isinstance(counter, Balance) else None,
            )
            for _, name, counter in self.counters
        )

    def encode(self) -> bytes:
        """Return the stored form."""
        period, quota = self._period, self.account.quota
        return _encoder.encode(
            State(
                self.moment,
                [WindowState(name, one.window_s, one.parts) for name, one in self._windows.items()],
                "" if quota is None else quota.per,
                0 if period is None else period.start,
                0 if period is None else period.used,
                None if self._balance is None else self._balance.stored,
            )
        )

    @property
    def expires_at(self) -> int:
        """The time from which none of its units count."""
        return max([self.moment, *(counter.ends_at for _, _, counter in self.counters)])

    def _seconds_until(self, moment: int) -> int:
        return -((self.clock - moment) // MICROSECONDS)  # rounded up


def charge(ledgers: Sequence[Ledger], cost: int) -> Refusal | None:
    """Add a call to all ledgers or to none; return the refusal with the longest wait, if any."""
    refusals = [refused for one in ledgers if (refused := one.refusal(cost)) is not None]
    if refusals:
        return longest_wait(refusals)
    for ledger in ledgers:
        ledger.spend(cost)
    return None


def longest_wait(refusals: Sequence[Refusal]) -> Refusal | None:
    """Return the refusal with the longest wait; None if there is none."""
    return max(
        refusals, key=lambda refused: math.inf if refused.wait_s is None else refused.wait_s, default=None
    )
