"""The rules for the values of a key are pure: they name the faulty part of a value, and know neither HTTP nor commands."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from latchkey.models.limit import RateLimit
from latchkey.service.keys.values import canonical_networks, future_utc, in_utc
from latchkey.service.limits.rules import distinct_limits
from latchkey.service.problems import Problem, invalid_field
from latchkey.service.rule_error import RuleError


def test_valid_values_are_returned_as_they_are_stored() -> None:
    east = datetime(9000, 1, 1, tzinfo=timezone(timedelta(hours=2)))

    assert canonical_networks(["2001:DB8::/32"]) == ("2001:db8::/32",)
    assert future_utc(east) == east
    assert future_utc(east).tzinfo is UTC


def test_a_moment_that_has_passed_or_has_no_utc_is_refused() -> None:
    with pytest.raises(RuleError, match="the time has passed"):
        future_utc(datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(RuleError, match="out of range in UTC"):
        in_utc(datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))))


@pytest.mark.parametrize("names", [("a", "a"), ("a", "quota")])
def test_the_name_of_a_limit_is_its_own(names: tuple[str, str]) -> None:
    with pytest.raises(RuleError) as raised:
        distinct_limits([RateLimit(name=one, limit=1, window_s=1) for one in names])

    assert raised.value.path == (1, "name")


def test_an_endpoint_answers_the_fault_with_a_pointer_to_it() -> None:
    with pytest.raises(Problem) as raised, invalid_field("/allowed_networks"):
        canonical_networks(["192.0.2.0/24", "0.0.0.0/0"])

    assert raised.value.code == "invalid_body"
    assert [one.pointer for one in raised.value.errors] == ["/allowed_networks/1"]
