"""Credits: what is left, and what a refill adds; the clock is an argument."""

from datetime import UTC, datetime
from typing import Literal

import pytest

from latchkey.models.limit import Credits, Quota, RateLimit, Refill
from latchkey.service.limits.account import Account
from latchkey.service.limits.headers import policy_header, standing_header
from latchkey.service.limits.ledger import Ledger, Refusal, charge
from latchkey.service.limits.period import to_microseconds

S = 1_000_000
DAY_S = 24 * 60 * 60
ACCOUNT = Account("key:1", "", (), None, True)


def at(text: str) -> int:
    """Return a time in UTC, in microseconds."""
    return to_microseconds(datetime.fromisoformat(text).replace(tzinfo=UTC))


NOON = at("2026-11-22T12:00:00")


def given(
    remaining: int, amount: int = 0, every: Literal["day", "month"] = "day", *, clock: int = NOON
) -> bytes:
    """Return the stored form of new credits."""
    ledger = Ledger(ACCOUNT, None, clock)
    refill = Refill(amount=amount, every=every) if amount else None
    ledger.set_credits(Credits(remaining=remaining, refill=refill))
    return ledger.encode()


def spend(
    stored: bytes | None, cost: int, clock: int, account: Account = ACCOUNT
) -> tuple[bytes | None, Refusal | None]:
    """Charge a call; return the stored form and the refusal."""
    ledger = Ledger(account, stored, clock)
    refusal = charge([ledger], cost)
    return (stored, refusal) if refusal else (ledger.encode(), None)


def left(stored: bytes | None, clock: int) -> int | None:
    found = Ledger(ACCOUNT, stored, clock).credits
    return None if found is None else found.remaining


def test_credits_are_spent_to_the_last_and_not_beyond() -> None:
    stored: bytes | None = given(5)

    stored, first = spend(stored, 4, NOON)
    stored, second = spend(stored, 2, NOON)
    stored, third = spend(stored, 1, NOON)

    assert (first, third) == (None, None)
    assert second == Refusal(rule="credits", kind="credits", limit=1, window_s=0, remaining=1, wait_s=None)
    assert left(stored, NOON + 400 * DAY_S * S) == 0


@pytest.mark.parametrize(
    "remaining, spent, every, now, expected",
    [
        pytest.param(5, 5, "day", "2026-11-22T23:59:59.999999", 0, id="a microsecond before midnight"),
        pytest.param(5, 5, "day", "2026-11-23T00:00:00", 3, id="midnight"),
        pytest.param(5, 5, "day", "2026-12-31T12:00:00", 3, id="forty days later: once"),
        pytest.param(9, 1, "day", "2026-11-23T00:00:00", 8, id="more than the refill stays"),
        pytest.param(5, 5, "month", "2026-11-30T23:59:59", 0, id="before the month ends"),
        pytest.param(5, 5, "month", "2026-12-01T00:00:00", 3, id="the next month"),
        pytest.param(0, 0, "day", "2026-11-22T12:00:01", 0, id="not on the day on which they are given"),
    ],
)
def test_a_refill_is_exact_and_needs_no_job(
    remaining: int, spent: int, every: Literal["day", "month"], now: str, expected: int
) -> None:
    stored, refusal = spend(given(remaining, 3, every), spent, NOON)

    assert refusal is None
    assert left(stored, at(now)) == expected


def test_a_refill_is_added_once_however_often_it_is_read() -> None:
    stored: bytes | None = given(0, 3)
    for second in range(3):
        stored, refusal = spend(stored, 1, at("2026-11-23T00:00:00") + second * S)
        assert refusal is None

    _, refusal = spend(stored, 1, at("2026-11-23T23:59:59"))

    assert refusal == Refusal(rule="credits", kind="credits", limit=3, window_s=DAY_S, remaining=0, wait_s=1)


def test_a_cost_above_the_refill_never_fits() -> None:
    _, refusal = spend(given(2, 3), 4, NOON)

    assert refusal is not None
    assert (refusal.kind, refusal.remaining, refusal.wait_s) == ("credits", 2, None)


def test_a_clock_that_steps_back_adds_no_second_refill() -> None:
    stored, _ = spend(given(0, 3), 3, at("2026-11-23T00:00:00"))

    assert left(stored, at("2026-11-22T12:00:00")) == 0
    assert left(stored, at("2026-11-23T12:00:00")) == 0


@pytest.mark.parametrize("later, expected", [("2026-11-22T23:00:00", 5), ("2026-11-23T01:00:00", 3)])
def test_a_refund_before_the_refill_returns_what_was_spent(later: str, expected: int) -> None:
    stored, _ = spend(given(5, 3), 5, NOON)

    ledger = Ledger(ACCOUNT, stored, at(later))
    ledger.refund(5, NOON)

    assert left(ledger.encode(), at(later)) == expected


def test_a_key_that_was_cached_without_credits_spends_them_and_loses_none() -> None:
    cached = Account("key:1", "", (RateLimit(name="burst", limit=10, window_s=60),), None)

    stored, refusal = spend(given(5), 2, NOON, cached)

    assert refusal is None
    assert left(stored, NOON) == 3


def test_a_key_whose_counter_is_lost_has_no_credits() -> None:
    _, refusal = spend(None, 1, NOON)

    assert refusal is not None
    assert (refusal.kind, refusal.remaining) == ("credits", 0)


def test_credits_and_limits_are_charged_both_or_not_at_all() -> None:
    account = Account(
        "key:1", "", (RateLimit(name="burst", limit=2, window_s=60),), Quota(limit=9, per="day"), True
    )
    stored: bytes | None = given(1)

    stored, first = spend(stored, 1, NOON, account)
    stored, second = spend(stored, 1, NOON, account)

    assert first is None
    assert second is not None
    assert second.kind == "credits"
    assert {one.name: one.remaining for one in Ledger(account, stored, NOON).figures()} == {
        "burst": 1,
        "quota": 8,
        "credits": 0,
    }


def test_credits_never_expire() -> None:
    assert Ledger(ACCOUNT, given(0), NOON).expires_at == at("9999-12-31T00:00:00")


def test_the_counter_of_an_older_release_is_read() -> None:
    older = bytes.fromhex("95cf0006442a1d8d400090a00000")

    assert Ledger(ACCOUNT, older, NOON).credits == Credits(remaining=0)


def test_headers_name_credits_and_their_refill() -> None:
    plain = Ledger(ACCOUNT, given(5), NOON).figures()
    spent, _ = spend(given(5, 7), 4, NOON)
    refilled = Ledger(ACCOUNT, spent, NOON).figures()

    assert (policy_header(plain), standing_header(plain)) == ([], [(b"ratelimit", b'"credits";r=5')])
    assert policy_header(refilled) == [(b"ratelimit-policy", b'"credits";q=7;w=86400')]
    assert standing_header(refilled) == [(b"ratelimit", b'"credits";r=1;t=43200')]
