"""Whether a call fits and how long it must wait; the clock is an argument."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.models.limit import Quota, RateLimit
from latchkey.service.limits.account import Account
from latchkey.service.limits.ledger import Ledger, Refusal, charge
from latchkey.service.limits.period import to_microseconds
from latchkey.service.limits.window import SLICES

S = 1_000_000
START = to_microseconds(datetime(2026, 11, 22, 12, tzinfo=UTC))


def at(text: str) -> int:
    """Return a time in UTC, in microseconds."""
    return to_microseconds(datetime.fromisoformat(text).replace(tzinfo=UTC))


def limit(name: str = "burst", limit: int = 2, window_s: int = 60) -> RateLimit:
    return RateLimit(name=name, limit=limit, window_s=window_s)


def account(*limits: RateLimit, quota: Quota | None = None, prefix: str = "") -> Account:
    return Account("key:1", prefix, limits, quota)


class Subject:
    """A limited subject: its stored state is passed from one call to the next, as in the table."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.stored: bytes | None = None

    def open(self, clock: int) -> Ledger:
        return Ledger(self.account, self.stored, clock)

    def call(self, clock: int, cost: int = 1) -> Refusal | None:
        ledger = self.open(clock)
        refusal = charge([ledger], cost)
        if refusal is None:
            self.stored = ledger.encode()
        return refusal

    def remaining(self, clock: int) -> dict[str, int]:
        return {figure.name: figure.remaining for figure in self.open(clock).figures()}


# ---------------------------------------------------------------------- a window slides


@pytest.mark.parametrize(
    "spent, now, wait_s",
    [
        pytest.param([], 0, None, id="nothing spent"),
        pytest.param([0], 0, None, id="one of two"),
        pytest.param([0, 0], 0, 60, id="both at once"),
        pytest.param([0, 0], 59 * S, 1, id="a second before it fits"),
        pytest.param([0, 0], 60 * S - 1, 1, id="a microsecond before it fits"),
        pytest.param([0, 0], 60 * S, None, id="a whole window later"),
        pytest.param([0, 59 * S], 59 * S, 1, id="the first leaves first"),
        pytest.param([59 * S, 59 * S], 61 * S, 58, id="no double burst over the edge of a minute"),
        pytest.param([0, 59 * S, 60 * S], 61 * S, 58, id="what left is replaced"),
        pytest.param([0, S], S, 60, id="one slice counts until its last unit leaves"),
        pytest.param([0, 10 * S], 20 * S + 1, 40, id="a wait is rounded up"),
    ],
)
def test_the_third_call_of_two_a_minute_waits(spent: list[int], now: int, wait_s: int | None) -> None:
    subject = Subject(account(limit()))
    assert [subject.call(START + moment) for moment in spent] == [None] * len(spent)

    refusal = subject.call(START + now)

    assert (refusal and refusal.wait_s) == wait_s


def test_a_refused_call_consumes_nothing_of_any_limit() -> None:
    subject = Subject(account(limit("one", 1), limit("many", 100), quota=Quota(limit=100, per="day")))
    assert subject.call(START) is None

    refusals = [subject.call(START) for _ in range(5)]

    assert [refusal and refusal.rule for refusal in refusals] == ["one"] * 5
    assert subject.remaining(START) == {"one": 0, "many": 99, "quota": 99}


def test_two_subjects_are_charged_both_or_not_at_all() -> None:
    key, owner = account(limit(limit=5)), Account("user:1", "owner.", (limit(limit=1),), None)

    ledgers = [Ledger(key, None, START), Ledger(owner, None, START)]
    first, second = charge(ledgers, 1), charge(ledgers, 1)

    assert first is None
    assert second is not None
    assert second.rule == "owner.burst"
    assert [(one.name, one.remaining) for ledger in ledgers for one in ledger.figures()] == [
        ("burst", 4),
        ("owner.burst", 0),
    ]


def test_the_longest_wait_of_several_refusals_counts() -> None:
    subject = Subject(account(limit("short", 1, 10), limit("long", 1, 100), limit("middle", 1, 50)))
    assert subject.call(START) is None

    refusal = subject.call(START)

    assert refusal == Refusal(rule="long", kind="limit", limit=1, window_s=100, remaining=0, wait_s=100)


@pytest.mark.parametrize("rules", [account(limit(limit=3)), account(quota=Quota(limit=3, per="day"))])
def test_a_cost_above_the_limit_never_fits(rules: Account) -> None:
    subject = Subject(rules)

    refusal = subject.call(START, 4)

    assert refusal is not None
    assert refusal.wait_s is None
    assert subject.call(START, 3) is None


def test_a_dear_call_waits_until_enough_has_left() -> None:
    subject = Subject(account(limit(limit=3)))
    assert [subject.call(START + moment * S) for moment in (0, 20, 40)] == [None] * 3

    waits = [refused and refused.wait_s for refused in (subject.call(START + 45 * S, n) for n in (1, 2, 3))]

    assert waits == [15, 35, 55]


# ---------------------------------------------------------------------- the calendar


@pytest.mark.parametrize(
    "per, now, wait_s",
    [
        pytest.param("day", "2026-11-22T23:59:59", 1, id="the last second of a day"),
        pytest.param("day", "2026-11-22T23:59:59.999999", 1, id="its last microsecond"),
        pytest.param("day", "2026-11-22T00:00:00", 86400, id="its first"),
        pytest.param("day", "2026-12-31T12:00:00", 43200, id="the last day of a year"),
        pytest.param("month", "2026-11-30T23:59:59", 1, id="a month of 30 days"),
        pytest.param("month", "2026-10-31T00:00:00", 86400, id="the 31st"),
        pytest.param("month", "2026-12-31T23:00:00", 3600, id="the end of a year"),
        pytest.param("month", "2027-02-28T00:00:00", 86400, id="February"),
        pytest.param("month", "2028-02-28T00:00:00", 2 * 86400, id="February of a leap year"),
        pytest.param("month", "2027-01-31T00:00:00", 86400, id="the 31st before February"),
        pytest.param("month", "2026-03-29T02:30:00", 2 * 86400 + 77400, id="no summer time in UTC"),
    ],
)
def test_a_quota_is_whole_again_at_the_end_of_its_period(per: str, now: str, wait_s: int) -> None:
    subject = Subject(account(quota=Quota(limit=1, per=per)))  # type: ignore[arg-type]  # the table's
    assert subject.call(at(now)) is None

    refusal = subject.call(at(now))

    assert refusal is not None
    assert (refusal.kind, refusal.wait_s) == ("quota", wait_s)
    end = (at(now) + wait_s * S) // S * S
    assert subject.call(end - 1) is not None
    assert subject.call(end) is None


@pytest.mark.parametrize(
    "per, now, window_s",
    [("day", "2026-11-22", 86400), ("month", "2026-11-22", 30 * 86400), ("month", "2027-02-01", 28 * 86400)],
)
def test_the_length_of_a_period_is_that_of_the_calendar(per: str, now: str, window_s: int) -> None:
    ledger = Ledger(account(quota=Quota(limit=1, per=per)), None, at(now))  # type: ignore[arg-type]  # the table's

    assert [figure.window_s for figure in ledger.figures()] == [window_s]


# ---------------------------------------------------------------------- a clock that steps back


@pytest.mark.parametrize("back_s", [1, 59, 3600, 40 * 86400], ids=["1 s", "59 s", "1 h", "over a month"])
@pytest.mark.parametrize(
    "rules",
    [account(limit()), account(quota=Quota(limit=2, per="day")), account(quota=Quota(limit=2, per="month"))],
    ids=["a window", "a day", "a month"],
)
def test_a_clock_that_steps_back_brings_nothing_back(rules: Account, back_s: int) -> None:
    subject = Subject(rules)
    assert [subject.call(START), subject.call(START)] == [None, None]

    refusal = subject.call(START - back_s * S)

    assert refusal is not None
    assert refusal.wait_s is not None
    assert subject.call(START + (refusal.wait_s - back_s) * S) is None


def test_units_spent_while_the_clock_is_behind_count_from_the_latest_moment() -> None:
    subject = Subject(account(limit()))
    assert subject.call(START) is None
    assert subject.call(START - 30 * S) is None

    assert subject.call(START + 60 * S - 1) is not None
    assert subject.call(START + 60 * S) is None


# ---------------------------------------------------------------------- rules that change


@pytest.mark.parametrize(
    "before, after, remaining",
    [
        pytest.param(limit(limit=5), limit(limit=9), 6, id="a limit that is raised"),
        pytest.param(limit(limit=5), limit(limit=4), 1, id="a limit that is lowered"),
        pytest.param(limit(limit=5), limit(limit=2), 0, id="a limit that is lowered below what is spent"),
        pytest.param(limit(limit=5), limit(limit=5, window_s=61), 5, id="another window begins anew"),
        pytest.param(limit(limit=5), limit("other", 5), 5, id="another name begins anew"),
    ],
)
def test_counts_are_kept_for_the_same_name_and_window(
    before: RateLimit, after: RateLimit, remaining: int
) -> None:
    subject = Subject(account(before))
    for _ in range(3):
        assert subject.call(START) is None
    subject.account = account(after)

    assert subject.remaining(START) == {after.name: remaining}


def test_a_quota_keeps_its_count_unless_its_period_changes() -> None:
    subject = Subject(account(quota=Quota(limit=5, per="day")))
    assert subject.call(START) is None

    subject.account = account(quota=Quota(limit=9, per="day"))
    assert subject.remaining(START) == {"quota": 8}
    subject.account = account(quota=Quota(limit=9, per="month"))
    assert subject.remaining(START) == {"quota": 9}


# ---------------------------------------------------------------------- refunds


def test_refunded_units_are_available_again_and_other_calls_stay() -> None:
    subject = Subject(account(limit(limit=5), quota=Quota(limit=5, per="day")))
    assert [subject.call(START + moment * S) for moment in (0, 20, 40)] == [None] * 3

    ledger = subject.open(START + 45 * S)
    ledger.refund(1, START + 20 * S)
    subject.stored = ledger.encode()

    assert subject.remaining(START + 45 * S) == {"burst": 3, "quota": 3}
    assert subject.remaining(START + 60 * S) == {"burst": 4, "quota": 3}
    assert subject.remaining(START + 100 * S) == {"burst": 5, "quota": 3}


def test_units_that_no_longer_count_are_not_refunded() -> None:
    subject = Subject(account(limit(limit=5), quota=Quota(limit=5, per="day")))
    assert subject.call(START) is None
    tomorrow = START + 86400 * S
    assert subject.call(tomorrow) is None

    ledger = subject.open(tomorrow)
    ledger.refund(1, START)

    assert [figure.remaining for figure in ledger.figures()] == [4, 4]


def test_a_counter_expires_when_nothing_in_it_counts() -> None:
    rules = account(limit(window_s=10), limit("hourly", 5, 3600))
    ledger = Ledger(rules, None, START)
    assert ledger.expires_at == START
    ledger.spend(1)

    assert ledger.expires_at == START + 3600 * S


# ---------------------------------------------------------------------- random calls

GAPS_US = st.integers(0, 4 * S) | st.sampled_from([0, 1, S // 50, S, S - 1, 3 * S])
CALLS = st.lists(st.tuples(GAPS_US, st.integers(1, 4)), max_size=60)
RULES = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 7)).map(lambda pair: limit("n", *pair)),
    min_size=1,
    max_size=3,
).map(
    lambda rules: account(*(limit(f"n{place}", one.limit, one.window_s) for place, one in enumerate(rules)))
)


@given(RULES, CALLS)
def test_no_window_ever_has_more_than_its_limit(rules: Account, calls: list[tuple[int, int]]) -> None:
    subject, clock = Subject(rules), START
    granted: list[tuple[int, int]] = []
    for gap, cost in calls:
        clock += gap
        if subject.call(clock, cost) is None:
            granted.append((clock, cost))

    for rule in rules.limits:
        for start, _ in granted:
            inside = [cost for moment, cost in granted if start <= moment < start + rule.window_s * S]
            assert sum(inside) <= rule.limit


@given(RULES, CALLS)
def test_a_wait_is_long_enough_and_not_a_second_too_long(
    rules: Account, calls: list[tuple[int, int]]
) -> None:
    subject, clock = Subject(rules), START
    for gap, cost in calls:
        clock += gap
        refusal = subject.call(clock, cost)
        if refusal is None:
            continue
        if refusal.wait_s is None:
            assert cost > min(rule.limit for rule in rules.limits)
            continue
        assert refusal.wait_s >= 1
        assert charge([subject.open(clock + refusal.wait_s * S)], cost) is None
        assert charge([subject.open(clock + (refusal.wait_s - 1) * S)], cost) is not None


@given(CALLS)
def test_a_unit_counts_at_most_a_slice_longer_than_its_window(calls: list[tuple[int, int]]) -> None:
    """The limits are not too strict: an exact count with a window longer by a slice would refuse the same calls."""
    rule = limit(limit=9, window_s=5)
    subject, clock = Subject(account(rule)), START
    granted: list[tuple[int, int]] = []
    for gap, cost in calls:
        clock += gap
        since = clock - rule.window_s * S * (SLICES + 1) // SLICES
        exact = sum(units for moment, units in granted if moment > since)
        refusal = subject.call(clock, cost)
        assert refusal is None or exact + cost > rule.limit
        if refusal is None:
            granted.append((clock, cost))


@given(RULES, CALLS)
def test_the_state_stays_small(rules: Account, calls: list[tuple[int, int]]) -> None:
    subject, clock = Subject(rules), START
    for gap, cost in calls:
        clock += gap
        subject.call(clock, cost)

    assert all(len(window.parts) <= SLICES + 1 for window in subject.open(clock)._windows.values())
