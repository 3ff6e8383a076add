"""The requests of the load, and the evaluation of their answers."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.generators import parse
from benchmarks.load import LoadError, Tally, encode_request, percentile, read_requests, write_requests

# The output of wrk before the line of the script.
PRINTED = """Running 5s test @ http://127.0.0.1:8000
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    14.20ms    5.10ms  60.00ms   80.00%
  4975 requests in 5.00s, 3.10MB read

"""
LINE = (
    '{"requests":4975,"duration_us":5001000,"p50_us":14100,"p99_us":31000,"bad_statuses":BAD,"accepted":ACCEPTED,'
    '"broken":BROKEN,"timeouts":TIMEOUTS,"spent":SPENT}\n'
)


def line(**numbers: int) -> str:
    """Return the line of a script, with zeros for unnamed values."""
    text = LINE
    for name in ("BAD", "ACCEPTED", "BROKEN", "TIMEOUTS", "SPENT"):
        text = text.replace(name, str(numbers.get(name.lower(), 0)))
    return text


def test_requests_are_read_as_they_were_written(tmp_path: Path) -> None:
    requests = [b"GET / HTTP/1.1\r\n\r\n", b"", b"POST / HTTP/1.1\r\n\r\n{\n}\n"]

    write_requests(tmp_path / "requests", requests)

    assert read_requests(tmp_path / "requests") == requests


def test_a_request_is_written_as_it_goes_over_the_wire() -> None:
    assert encode_request("GET", "/v1/me", {"host": "a"}) == b"GET /v1/me HTTP/1.1\r\nhost: a\r\n\r\n"
    assert encode_request("POST", "/", {"host": "a"}, b"{}") == (
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )


def test_an_outcome_is_read_from_the_last_line() -> None:
    outcome = parse(PRINTED + line(bad=3, accepted=3))

    assert outcome.requests == 4975
    assert outcome.rps == pytest.approx(994.8, abs=0.1)
    assert (outcome.p50_us, outcome.p99_us, outcome.accepted) == (14100, 31000, 3)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PRINTED, "no outcome"),
        (line(bad=5, accepted=3), "2 answers with an error status"),
        (line(broken=1), "1 broken connections"),
        (line(timeouts=4), "4 timeouts"),
        (line(spent=2), "2 clients without a request left to send"),
        (line().replace("4975", "0"), "no answers at all"),
    ],
    ids=["no line", "error status", "broken", "timeout", "spent", "silence"],
)
def test_forbidden_answers_make_the_figure_void(text: str, fault: str) -> None:
    with pytest.raises(LoadError, match=fault):
        parse(text)


@pytest.mark.parametrize(
    ("values", "p50", "p99"),
    [([], 0, 0), ([7], 7, 7), (list(range(1, 101)), 50, 99), (list(range(1, 1001)), 500, 990)],
    ids=["none", "one", "hundred", "thousand"],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[Any], p50: int, p99: int) -> None:
    assert (percentile(values, 50), percentile(values, 99)) == (p50, p99)


def test_a_tally_counts_answers_by_what_is_expected() -> None:
    tally = Tally()
    for status in (200, 201, 503, 401, 404):
        tally.note(status, 1000, frozenset({401, 404}))

    outcome = tally.outcome(1_000_000)

    assert (outcome.requests, outcome.bad_statuses, outcome.accepted) == (5, 3, 2)
    assert outcome.faults() == ["1 answers with an error status"]
