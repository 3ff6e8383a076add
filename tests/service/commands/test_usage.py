"""`latchkey usage`."""

import csv
import io
from datetime import UTC, datetime

import pytest

from latchkey.service.commands.usage import bar_of, drawn
from latchkey.service.settings import Settings
from latchkey.service.usage.shapes import UsageReport, UsageRow
from tests.service.commands.running import CREATE_USER, NO_KEY, Run, answered, ask, good


@pytest.fixture
def access_key(migrated: Settings, run: Run) -> str:
    """Make three calls with a key, one of them refused, and one without a key."""
    user = answered(run(*CREATE_USER, "usage@example.com", "--json"))
    key = answered(
        run("keys", "create", "--user", str(user["id"]), "--name", "n", "--mode", "bearer",
            "--scopes", "keys:read", "--json")
    )  # fmt: skip
    ask(migrated, key["secret"], *[("GET", "/v1/me", "")] * 2, ("GET", "/v1/users", ""), ("GET", "/", ""))
    found: str = key["access_key"]
    return found


def test_the_calls_of_a_key_are_shown(access_key: str, run: Run) -> None:
    as_json = answered(run("usage", access_key, "--by", "hour", "--group", "status", "--json"))
    shown = good(run("usage", access_key, "--by", "hour", "--group", "status")).stdout.splitlines()
    as_csv = list(csv.DictReader(io.StringIO(good(run("usage", access_key, "--csv")).stdout)))

    assert (as_json["calls"], as_json["units"]) == (3, 2)
    assert [(row["status"], row["code"], row["calls"]) for row in as_json["data"]] == [
        (200, None, 2),
        (403, "scope_missing", 1),
    ]
    assert [line.split()[-3:] for line in shown[1:-1]] == [
        ["2", "2", "█" * len(shown[1].split()[-1])],
        ["1", "0", "█" * len(shown[2].split()[-1])],
    ]
    longer, shorter = (len(line.split()[-1]) for line in shown[1:-1])
    assert abs(longer - 2 * shorter) <= 1
    assert shown[-1].split() == ["total", "3", "2"]
    assert [row["calls"] for row in as_csv] == ["3"]


def test_without_a_key_all_calls_are_shown(access_key: str, run: Run) -> None:
    report = answered(run("usage", "--group", "route", "--json"))

    assert {row["route"]: row["calls"] for row in report["data"]} == {
        "GET /": 1,
        "GET /v1/me": 2,
        "GET /v1/users": 1,
    }


def test_mistakes_are_one_sentence(migrated: Settings, run: Run) -> None:
    unknown = run("usage", NO_KEY)
    too_long = run("usage", "--by", "minute", "--from", "2026-01-01T00:00:00Z")
    both = run("usage", "--json", "--csv")

    assert (unknown.exit_code, unknown.stderr) == (1, f"Error: there is no key {NO_KEY}.\n")
    assert too_long.exit_code == 2
    assert "--from: the range has more than 1500 periods" in too_long.stderr
    assert both.exit_code == 2


def test_bars_fit_into_the_terminal_and_its_encoding() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        UsageRow(start=start, period="day", route=None, status=None, code=None, tag="a", calls=calls, units=0)
        for calls in (1000, 1)
    ]
    report = UsageReport(from_=start, to=start, by="day", group="tag", calls=1001, units=0, data=rows)

    lines = drawn(report, width=50, bar=bar_of("ascii")).splitlines()

    assert max(map(len, lines)) == 50
    assert lines[1].endswith("  " + "#" * (50 - len("2026-03-01   a    1000   0      ")))
    assert lines[2].endswith("0      #")
    assert bar_of("utf-8") == "█"


def test_no_calls_are_no_rows(migrated: Settings, run: Run) -> None:
    lines = good(run("usage")).stdout.splitlines()

    assert [line.split() for line in lines] == [["start", "(UTC)", "calls", "units"], ["total", "0", "0"]]
