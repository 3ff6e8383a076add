"""Failures are counted for a pair of address and access key, over a minute, in bounded memory."""

import ipaddress
from bisect import bisect_right
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from latchkey.service.authentication.failures import UNKNOWN_KEYS_FACTOR, Failures
from latchkey.service.authentication.wire.credentials import Secret
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem
from tests.service.authentication.signed_requests import (
    NOW,
    Attempt,
    HeldKeys,
    bearer,
    header,
    signed,
    unknown_key,
)

HERE, THERE = (ipaddress.ip_address(text) for text in ("192.0.2.1", "192.0.2.2"))
ONE, OTHER = "lka_1", "lka_2"


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failures(clock: Clock) -> Failures:
    """Return a count with at most three failures in a minute."""
    return Failures(3, clock=clock)


def fail(failures: Failures, pair: tuple[IPv4Address | IPv6Address | None, str], times: int) -> None:
    for _ in range(times):
        failures.note(pair)


def test_no_pair_waits_until_there_are_too_many_failures(failures: Failures) -> None:
    fail(failures, (HERE, ONE), 2)
    assert failures.wait_s((HERE, ONE)) == 0

    fail(failures, (HERE, ONE), 1)
    assert failures.wait_s((HERE, ONE)) > 0


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param((THERE, ONE), id="the id from another address"),
        pytest.param((HERE, OTHER), id="another id from the address"),
        pytest.param((None, ONE), id="the id from an unknown address"),
    ],
)
def test_failures_of_a_pair_lock_out_no_other_pair(failures: Failures, pair: tuple[Any, ...]) -> None:
    fail(failures, (HERE, ONE), 50)

    assert failures.wait_s(pair) == 0


def test_a_minute_later_all_is_forgotten(failures: Failures, clock: Clock) -> None:
    fail(failures, (HERE, ONE), 3)

    assert failures.wait_s((HERE, ONE)) == 61
    clock.now += 60.9
    assert failures.wait_s((HERE, ONE)) == 1
    clock.now += 0.1
    assert failures.wait_s((HERE, ONE)) == 0


def test_the_minute_slides(failures: Failures, clock: Clock) -> None:
    """Failures on both sides of a full minute count together, and each expires on its own."""
    for _ in range(3):
        failures.note((HERE, ONE))
        clock.now += 29

    assert clock.now == 1087
    assert failures.wait_s((HERE, ONE)) == 0  # the first is forgotten
    failures.note((HERE, ONE))
    assert failures.wait_s((HERE, ONE)) == 1029 + 61 - 1087


def test_the_wait_after_more_failures_than_allowed_lasts_until_the_newest_leave(
    failures: Failures, clock: Clock
) -> None:
    fail(failures, (HERE, ONE), 5)
    clock.now += 10
    fail(failures, (HERE, ONE), 3)

    assert failures.wait_s((HERE, ONE)) == 61


def test_zero_counts_nothing(clock: Clock) -> None:
    failures = Failures(0, clock=clock)

    fail(failures, (HERE, ONE), 50)

    assert failures.wait_s((HERE, ONE)) == 0
    assert len(failures._pairs) == 0


def test_beyond_its_memory_it_forgets_whose_last_failure_is_the_oldest(clock: Clock) -> None:
    failures = Failures(1, clock=clock, memory=2)
    first, second, third = ((HERE, f"lka_{number}") for number in range(3))

    for pair in (first, second, first, third):
        failures.note(pair)

    assert [failures.wait_s(pair) > 0 for pair in (first, second, third)] == [True, False, True]
    assert len(failures._pairs) == 2


def test_looking_remembers_nobody(failures: Failures) -> None:
    for number in range(50):
        failures.wait_s((HERE, f"lka_{number}"))

    assert len(failures._pairs) == 0


def test_a_pair_holds_no_more_than_a_minute(clock: Clock) -> None:
    failures = Failures(1000, clock=clock)

    for _ in range(5000):
        failures.note((HERE, ONE))
        clock.now += 0.1

    (seconds,) = failures._pairs.values()
    assert len(seconds) <= 61


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.floats(0, 40), min_size=1, max_size=40),
)
def test_no_minute_takes_too_many_and_nobody_waits_too_short_or_too_long(
    limit: int, steps: list[float]
) -> None:
    """The count is compared with a list of all failures."""
    clock = Clock()
    failures = Failures(limit, clock=clock)
    moments: list[float] = []

    for step in steps:
        clock.now += step
        wait_s = failures.wait_s((HERE, ONE))
        if wait_s:
            before = clock.now
            clock.now += wait_s
            assert failures.wait_s((HERE, ONE)) == 0
            clock.now = before
            # Two seconds earlier, a count with a resolution of microseconds would still find too many.
            assert len(moments) - bisect_right(moments, before + wait_s - 2 - 60) >= limit
            continue
        failures.note((HERE, ONE))
        moments.append(clock.now)
        assert len(moments) - bisect_right(moments, clock.now - 60) <= limit


# ---------------------------------------------------------------------- through all middleware


def message(key: HeldKey, *, secret: Secret) -> Attempt:
    """Sign the message instead of the query."""
    headers = sign_message(
        secret, key.access_key, NOW,
        method="GET", scheme="http", authority="testserver", raw_path="/v1/me", nonce="n0nce-0123456789",
    )  # fmt: skip
    return Attempt(headers=tuple(headers.items()))


class TestInTheMiddleware:
    """At most two failures in a minute."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, auth_failures_per_min=2)

    @pytest.fixture
    def app(self, app: Starlette, clock: Clock) -> Starlette:
        app.state.latchkey.verifier.failures.clock = clock
        return app

    @pytest.mark.parametrize(
        "make_attempt",
        [
            pytest.param(lambda c: signed(c.signer, secret="x"), id="a wrong signature"),
            pytest.param(lambda c: signed(c.signer, timestamp=str(NOW + 3600)), id="a wrong clock"),
            pytest.param(lambda c: signed(c.signer, behind="&method=HEAD"), id="another method"),
            pytest.param(
                lambda c: message(c.signer, secret=Secret("x")), id="a wrong signature of the message"
            ),
        ],
    )
    async def test_beyond_the_limit_nothing_is_looked_up(
        self, app: Starlette, held_keys: HeldKeys, clock: Clock, make_attempt: Callable[..., Any]
    ) -> None:
        for _ in range(2):
            assert_problem(await make_attempt(held_keys).send(app), 401, "unauthenticated")
        clock.now += 20.5

        with wire.listening() as commands:
            wrong, right = await make_attempt(held_keys).send(app), await signed(held_keys.signer).send(app)

        for answer in (wrong, right):
            assert_problem(answer, 429, "too_many_failures")
            assert answer.headers["retry-after"] == "41"
        assert commands == []

    async def test_after_what_it_was_told_to_wait_a_call_is_looked_at(
        self, app: Starlette, held_keys: HeldKeys, clock: Clock
    ) -> None:
        for _ in range(3):
            refused = await signed(held_keys.signer, secret="x").send(app)

        clock.now += int(refused.headers["retry-after"]) - 1
        assert (await signed(held_keys.signer).send(app)).status == 429
        clock.now += 1
        assert (await signed(held_keys.signer).send(app)).status == 200

    async def test_below_the_limit_a_right_call_passes(self, app: Starlette, held_keys: HeldKeys) -> None:
        await signed(held_keys.signer, secret="x").send(app)

        assert (await signed(held_keys.signer).send(app)).status == 200

    async def test_an_id_that_is_not_there_is_counted_as_one_that_is(
        self, app: Starlette, held_keys: HeldKeys
    ) -> None:
        """Otherwise the limit would reveal which access keys exist."""
        answers = {
            name: [(await signed(key, secret="x").send(app)).status for _ in range(3)]
            for name, key in {"there": held_keys.signer, "not there": held_keys.unknown}.items()
        }

        assert answers == {"there": [401, 401, 429], "not there": [401, 401, 429]}

    async def test_failures_lock_out_no_other_key_and_no_other_address(
        self, app: Starlette, held_keys: HeldKeys
    ) -> None:
        async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "client": ("192.0.2.1", 5)}, receive, send)

        for _ in range(5):
            await signed(held_keys.signer, secret="x").send(app)

        assert (await signed(held_keys.signer).send(app)).status == 429
        assert (await signed(held_keys.signer).send(elsewhere)).status == 200
        assert (await signed(held_keys.unscoped_signer).send(app)).status == 200
        assert (await bearer(held_keys.bearer).send(app)).status == 200

    @pytest.mark.parametrize(
        "make_attempt",
        [
            pytest.param(lambda c: bearer(c.unknown), id="unknown"),
            pytest.param(lambda c: bearer(c.signer), id="a signing key's"),
            pytest.param(lambda _: header("authorization", "Bearer guess"), id="no secret at all"),
        ],
    )
    async def test_bearer_tokens_count_together_for_their_address(
        self, app: Starlette, held_keys: HeldKeys, make_attempt: Callable[..., Any]
    ) -> None:
        for _ in range(2):
            assert_problem(await make_attempt(held_keys).send(app), 401, "unauthenticated")

        with wire.listening() as commands:
            assert_problem(await bearer(held_keys.bearer).send(app), 429, "too_many_failures")
        assert commands == []
        assert (await signed(held_keys.signer).send(app)).status == 200

    @pytest.mark.parametrize(
        "make_attempt, status",
        [
            pytest.param(lambda _: Attempt(), 401, id="no credential"),
            pytest.param(lambda c: bearer(c.bearer).adding(("secret", "x")), 400, id="two credentials"),
            pytest.param(lambda c: bearer(c.revoked), 401, id="a revoked key"),
            pytest.param(lambda c: signed(c.expired_signer), 401, id="an expired key"),
            pytest.param(lambda c: signed(c.unscoped_signer, "GET", "/v1/users"), 403, id="a scope too few"),
            pytest.param(lambda c: signed(c.signer, "DELETE", "/v1/users/0"), 403, id="too little covered"),
            pytest.param(lambda c: signed(c.signer, key="lka_"), 401, id="what is no access key"),
        ],
    )
    async def test_proved_calls_and_calls_without_a_key_are_no_failures(
        self, app: Starlette, held_keys: HeldKeys, make_attempt: Callable[..., Any], status: int
    ) -> None:
        answers = [(await make_attempt(held_keys).send(app)).status for _ in range(4)]

        assert answers == [status] * 4
        assert (await bearer(held_keys.bearer).send(app)).status == 200

    async def test_public_routes_are_open_to_all(self, app: Starlette, held_keys: HeldKeys) -> None:
        for _ in range(3):
            await bearer(held_keys.unknown).send(app)

        assert (await Attempt("/healthz", (held_keys.unknown.bearer,)).send(app)).status == 200


class TestSwitchedOff:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, auth_failures_per_min=0)

    async def test_any_number_is_answered_as_what_it_is(self, app: Starlette, held_keys: HeldKeys) -> None:
        answers = {(await bearer(held_keys.unknown).send(app)).status for _ in range(20)}

        assert answers == {401}


@pytest.fixture
def few(app: Starlette) -> int:
    """Allow at most three failures of a pair in a minute."""
    app.state.latchkey.verifier.failures.limit = 3
    return 3


async def test_access_keys_that_do_not_exist_are_counted_together(
    app: Starlette, held_keys: HeldKeys, few: int
) -> None:
    """Each is another pair, so the limit of pairs never stops a client that invents access keys."""
    assert (await signed(held_keys.signer).send(app)).status == 200
    for _ in range(few * UNKNOWN_KEYS_FACTOR):
        assert_problem(await signed(unknown_key()).send(app), 401, "unauthenticated")

    with wire.listening() as commands:
        answer = await signed(unknown_key()).send(app)

    assert_problem(answer, 429, "too_many_failures")
    assert 0 < int(answer.headers["retry-after"]) <= 61
    assert commands == []
    assert (await signed(held_keys.signer, nonce="n" * 20).send(app)).status == 200
    assert (await bearer(held_keys.bearer).send(app)).status == 200
