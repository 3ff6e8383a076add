"""The clients send a call again a bounded number of times, and only where that is safe; here the rules of the one in Python."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from latchkey_client import Attempts, Signer
from tests.server.clients.drive import KEY

NOW = 1700000000
LATER = {"retry-after": "1"}


def attempts(method: str = "POST", *, idempotent: bool = True) -> Attempts:
    return Attempts(Signer(KEY, "lks_", clock=lambda: NOW), method, {}, idempotent=idempotent)


def date(offset_s: int) -> dict[str, str]:
    return {"date": format_datetime(datetime.fromtimestamp(NOW + offset_s, UTC), usegmt=True)}


def test_a_refusal_is_repeated_three_times() -> None:
    call = attempts()

    assert [call.wait_s(status, LATER) for status in (503, 429, 503, 503)] == [1, 1, 1, None]


def test_the_pauses_have_a_bound_together() -> None:
    call = attempts()

    assert call.wait_s(429, {"retry-after": "61"}) is None
    assert [call.wait_s(429, {"retry-after": "31"}) for _ in range(2)] == [31, None]


@pytest.mark.parametrize(
    "method, idempotent, status, headers",
    [
        pytest.param("POST", False, 503, LATER, id="a change that cannot be repeated"),
        pytest.param("POST", True, 500, LATER, id="another status"),
        pytest.param("GET", True, 503, {}, id="no pause is named"),
        pytest.param("GET", True, 503, date(9), id="another header"),
        pytest.param("GET", True, 503, {"retry-after": date(9)["date"]}, id="a date"),
        pytest.param("GET", True, 401, date(5), id="a 401 with the same time"),
        pytest.param("GET", True, 401, {"date": "soon"}, id="a 401 with another date"),
        pytest.param("GET", True, 401, {}, id="a 401 without a date"),
    ],
)
def test_other_responses_are_the_last(
    method: str, idempotent: bool, status: int, headers: dict[str, str]
) -> None:
    assert attempts(method, idempotent=idempotent).wait_s(status, headers) is None


@pytest.mark.parametrize("method, idempotent, status", [("POST", False, 429), ("GET", False, 503)])
def test_calls_without_an_idempotency_key_are_repeated_where_that_is_safe(
    method: str, idempotent: bool, status: int
) -> None:
    assert attempts(method, idempotent=idempotent).wait_s(status, LATER) == 1


def test_the_clock_is_corrected_once() -> None:
    call = attempts()

    assert [call.wait_s(401, date(offset_s)) for offset_s in (3600, -3600)] == [0, None]


def test_an_idempotency_key_is_added_once_and_only_to_changes() -> None:
    signer = Signer(KEY, "lks_")
    given, made, none = {"idempotency-key": "mine"}, dict[str, str](), dict[str, str]()

    Attempts(signer, "PUT", given, idempotent=True)
    Attempts(signer, "DELETE", made, idempotent=True)
    Attempts(signer, "GET", none, idempotent=True)
    Attempts(signer, "POST", none, idempotent=False)

    assert given == {"idempotency-key": "mine"}
    assert len(made["idempotency-key"]) == 36
    assert none == {}
