"""Usage is read by period and group, of one key or of all keys of an owner, as JSON and CSV."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert
from starlette.applications import Starlette

from latchkey.models import UsageCount, UsageSeries
from latchkey.models.usage import DAY, HOUR, MINUTE, NO_KEY
from latchkey.service.usage import reading
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import table_of
from tests.requests import Answer
from tests.service.usage.counted import usage_of

START = datetime(2026, 3, 1, tzinfo=UTC)
FIRST = int(START.timestamp()) // 60
READ, REFUSED, BLUE, BOTH = 1, 2, 3, 4
SERIES = {
    READ: ("GET /v1/me", 200, "", ""),
    REFUSED: ("GET /v1/me", 429, "rate_limited", ""),
    BLUE: ("verify", 200, "", "blue"),
    BOTH: ("verify", 200, "", "blue green"),
}


async def fill(app: Starlette, *rows: Sequence[int]) -> None:
    """Insert the series, and rows of: length, key, minutes after the start, series, calls; each call has 2 units."""
    async with app.state.db.engine.begin() as connection:
        await connection.execute(
            insert(table_of(UsageSeries)),
            [
                {"id": number, "digest": bytes([number]) * 32, "key_id": NO_KEY, "route": route, "status": status, "code": code, "tags": tags}
                for number, (route, status, code, tags) in SERIES.items()
            ],
        )  # fmt: skip
        names = ("minutes", "key_id", "start", "series_id", "calls", "units")
        await connection.execute(
            insert(table_of(UsageCount)),
            [dict(zip(names, (a, b, FIRST + c, d, e, 2 * e), strict=True)) for a, b, c, d, e in rows],
        )


async def ask(app: Starlette, path: str, key: HeldKey, **query: Any) -> Answer:
    text = "&".join(f"{name.rstrip('_')}={value}" for name, value in query.items())
    return await call(app, "GET", f"{path}?{text}", key=key)


def in_short(answer: Answer, *names: str) -> list[tuple[Any, ...]]:
    """Return the start after START, the period, the named fields and the calls of each row."""
    assert answer.status == 200, answer.json
    return [
        (
            str(datetime.fromisoformat(row["start"]) - START),
            row["period"],
            *(row[name] for name in names),
            row["calls"],
        )
        for row in answer.json["data"]
    ]


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    return await hold_key(app, email="partner@example.com", scopes=["me.usage:read"])


@pytest.fixture
async def filled(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    """Fill two days: the first one rolled up, the second by hour and by minute."""
    await fill(
        app,
        (DAY, partner.id, 0, READ, 100),
        (HOUR, partner.id, DAY, READ, 10),
        (HOUR, partner.id, DAY + 60, REFUSED, 3),
        (MINUTE, partner.id, DAY + 121, READ, 1),
        (MINUTE, partner.id, DAY + 125, BLUE, 2),
        (MINUTE, partner.id, DAY + 125, BOTH, 4),
        (MINUTE, operator.id, DAY + 125, READ, 7),
    )


WHOLE = {"from_": "2026-03-01T00:00:00Z", "to": "2026-03-03T00:00:00Z"}


async def test_a_range_is_added_up_by_period(
    app: Starlette, operator: HeldKey, partner: HeldKey, filled: None
) -> None:
    path = f"/v1/keys/{partner.access_key}/usage"
    by_day = await ask(app, path, operator, **WHOLE)
    by_hour = await ask(app, path, operator, by="hour", **WHOLE)
    by_minute = await ask(
        app, path, operator, by="minute", from_="2026-03-02T01:59:30Z", to="2026-03-02T02:05:01Z"
    )

    assert in_short(by_day) == [("0:00:00", "day", 100), ("1 day, 0:00:00", "day", 20)]
    assert (by_day.json["calls"], by_day.json["units"]) == (120, 240)
    assert (by_day.json["from"], by_day.json["to"]) == ("2026-03-01T00:00:00Z", "2026-03-03T00:00:00Z")
    assert in_short(by_hour) == [
        ("0:00:00", "day", 100),
        ("1 day, 0:00:00", "hour", 10),
        ("1 day, 1:00:00", "hour", 3),
        ("1 day, 2:00:00", "hour", 7),
    ]
    assert in_short(by_minute) == [("1 day, 2:01:00", "minute", 1), ("1 day, 2:05:00", "minute", 6)]


async def test_the_calls_of_a_period_are_grouped(
    app: Starlette, operator: HeldKey, partner: HeldKey, filled: None
) -> None:
    path = f"/v1/keys/{partner.access_key}/usage"
    asked = WHOLE | {"from_": "2026-03-02T00:00:00Z"}
    by_route = await ask(app, path, operator, group="route", **asked)
    by_status = await ask(app, path, operator, group="status", **asked)
    by_tag = await ask(app, path, operator, group="tag", **asked)

    day = ("1 day, 0:00:00", "day")
    assert in_short(by_route, "route", "status") == [
        (*day, "GET /v1/me", None, 14),
        (*day, "verify", None, 6),
    ]
    assert in_short(by_status, "status", "code", "route") == [
        (*day, 200, None, None, 17),
        (*day, 429, "rate_limited", None, 3),
    ]
    assert in_short(by_tag, "tag") == [(*day, None, 14), (*day, "blue", 6), (*day, "green", 4)]
    assert by_tag.json["calls"] == 20


async def test_a_partner_reads_the_usage_of_its_own_keys(
    app: Starlette, operator: HeldKey, partner: HeldKey, filled: None
) -> None:
    other = await hold_key(app, email="partner@example.com", scopes=["users:read"])

    together = await ask(app, "/v1/me/usage", partner, **WHOLE)
    own = await ask(app, "/v1/me/usage", partner, access_key=partner.access_key, **WHOLE)
    idle = await ask(app, "/v1/me/usage", partner, access_key=other.access_key, **WHOLE)

    assert together.json["calls"] == own.json["calls"] == 120
    assert (idle.json["calls"], idle.json["data"]) == (0, [])
    assert_problem(
        await ask(app, "/v1/me/usage", partner, access_key=operator.access_key, **WHOLE), 404, "not_found"
    )
    assert_problem(await ask(app, "/v1/me/usage", other, **WHOLE), 403, "scope_missing")
    assert_problem(
        await ask(app, f"/v1/keys/{partner.access_key}/usage", partner, **WHOLE), 403, "scope_missing"
    )


async def test_csv_has_the_same_rows(
    app: Starlette, operator: HeldKey, partner: HeldKey, filled: None
) -> None:
    path = f"/v1/keys/{partner.access_key}/usage"
    asked = WHOLE | {"by": "hour", "group": "status"}
    answer = await ask(app, path, operator, format="csv", **asked)
    as_json = await ask(app, path, operator, **asked)

    assert dict(answer.headers)["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert rows == [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in as_json.json["data"]
    ]
    assert len(rows) == 4


async def test_calls_of_now_are_in_the_default_range(app: Starlette, operator: HeldKey) -> None:
    for _ in range(3):
        await call(app, "GET", "/v1/users", key=operator)
    await usage_of(app).flush()

    for by in ("minute", "hour", "day"):
        answer = await ask(app, f"/v1/keys/{operator.access_key}/usage", operator, by=by, group="route")
        rows = [row for row in answer.json["data"] if row["route"] == "GET /v1/users"]
        assert [(row["period"], row["calls"], row["units"]) for row in rows] == [(by, 3, 3)]


@pytest.mark.parametrize(
    "query, words",
    [
        pytest.param({"from_": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, "ends before", id="reversed"),
        pytest.param({"from_": "2026-03-01T00:00:00Z", "to": "2026-03-03T00:00:00Z", "by": "minute"}, "1500 periods", id="too long"),
        pytest.param({"from_": "0001-01-01T00:00:00Z", "to": "9999-12-31T00:00:00Z"}, "1500 periods", id="ages"),
        pytest.param({"from_": "0001-01-01T00:00:00%2B14:00"}, "out of range", id="before the first year"),
        pytest.param({"to": "9999-12-31T23:59:59-14:00"}, "out of range", id="after the last year"),
        pytest.param({"to": "9999-12-31T23:59:59Z"}, "out of range", id="rounded up to after the last year"),
        pytest.param({"to": "0001-01-02T00:00:00Z"}, "out of range", id="default start before the first year"),
        pytest.param({"from_": "2026-03-01T00:00:00"}, "from", id="without an offset"),
        pytest.param({"by": "week"}, "by", id="an unknown period"),
        pytest.param({"group": "key"}, "group", id="an unknown group"),
        pytest.param({"format": "xml"}, "format", id="an unknown format"),
    ],
)  # fmt: skip
async def test_a_range_that_cannot_be_read_is_refused(
    app: Starlette, operator: HeldKey, query: dict[str, str], words: str
) -> None:
    answer = await ask(app, "/v1/me/usage", operator, **query)

    assert_problem(answer, 400, "invalid_parameter")
    assert words in answer.json["detail"]


async def test_the_rows_of_a_response_are_bounded(
    app: Starlette, operator: HeldKey, partner: HeldKey, filled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_ROWS", 3)

    answer = await ask(app, f"/v1/keys/{partner.access_key}/usage", operator, by="hour", **WHOLE)

    assert_problem(answer, 400, "invalid_parameter")
    assert "more than 3 rows" in answer.json["detail"]
