"""Values that a team's own route cannot convert: a 404 or 400, never a 500."""

import enum
import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor, register_url_convertor

from latchkey.service.operation import Operation, route
from tests.api import assert_problem, call


class Colour(enum.Enum):
    RED = "red"


class Strange(enum.Enum):
    """A team's own enum that raises more than a ValueError."""

    RED = "red"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise OverflowError(value)


class Weekday(Convertor[str]):
    """A team's own convertor, which raises ValueError for unknown values."""

    regex = "[a-z]+"

    def convert(self, value: str) -> str:
        return ("monday", "tuesday")[("mon", "tue").index(value)]

    def to_string(self, value: str) -> str:
        return value[:3]


class Amount(msgspec.Struct):
    """A Struct whose own check raises an ArithmeticError that is not a ValueError: `decimal.InvalidOperation`."""

    amount: str

    def __post_init__(self) -> None:
        Decimal(self.amount)


class Period(msgspec.Struct, rename={"start": "from"}):
    """Two values that are refused together, and one that Python refuses with its own ValueError."""

    start: datetime | None = None
    days: int = 0

    def __post_init__(self) -> None:
        if self.start is not None:
            (self.start + timedelta(days=self.days)).astimezone(UTC)


class Text(msgspec.Struct):
    text: str


KINDS: dict[str, Any] = {
    "datetime": datetime,
    "zoned": Annotated[datetime, Meta(tz=True)],
    "maybe": datetime | None,
    "date": date,
    "time": time,
    "timedelta": timedelta,
    "int": int,
    "small": Annotated[int, Meta(ge=1, le=9)],
    "float": float,
    "positive": Annotated[float, Meta(gt=0)],
    "decimal": Decimal,
    "uuid": UUID,
    "colour": Colour,
    "strange": Strange,
    "bytes": bytes,
}
NASTY = [
    "253402300800",
    "-62135596801",
    "1e300",
    "inf",
    "nan",
    "sNaN",
    "1e99999999999",
    "9" * 5000,
    "-" + "9" * 400,
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00%2B14:00",
    "2999-02-30",
    "P9999999999D",
    "PT1e300S",
    "24:00:00",
    "%00",
    "%ed%a0%80",
    "%F0%9F%98%80",
    "null",
]


def shower(kind: Any, name: str) -> Any:
    async def show(value: Any) -> Text:
        return Text(str(value))

    show.__annotations__ = {"value": kind, "return": Text}
    show.__name__ = f"show_{name}"
    return show


def asker(kind: Any, name: str) -> Any:
    async def ask(query: Any) -> Text:
        return Text(str(query.value))

    ask.__annotations__ = {"query": msgspec.defstruct(f"Query_{name}", [("value", kind)]), "return": Text}
    ask.__name__ = f"ask_{name}"
    return ask


async def show_number(number: int) -> Text:
    return Text(str(number))


async def show_weekday(day: str) -> Text:
    return Text(day)


async def other_weekday(day: str) -> Text:
    return Text(day)


async def ask_period(query: Period) -> Text:
    return Text(str(query.days))


async def ask_amount(query: Amount) -> Text:
    return Text(query.amount)


async def take_period(body: Period) -> Text:
    return Text(str(body.days))


async def take_amount(body: Amount) -> Text:
    return Text(body.amount)


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Sequence[Operation]:
    monkeypatch.setitem(CONVERTOR_TYPES, "weekday", CONVERTOR_TYPES["str"])
    register_url_convertor("weekday", Weekday())
    return [
        *(
            route("GET", f"/show/{name}/{{value}}", shower(kind, name), public=True)
            for name, kind in KINDS.items()
        ),
        *(route("GET", f"/ask/{name}", asker(kind, name), public=True) for name, kind in KINDS.items()),
        route("GET", "/number/{number:int}", show_number, public=True),
        route("GET", "/weekday/{day:weekday}", show_weekday, public=True),
        route("DELETE", "/weekday/{day:weekday}", other_weekday, any_key=True),
        route("GET", "/period", ask_period, public=True),
        route("GET", "/amount", ask_amount, public=True),
        route("POST", "/period", take_period, public=True),
        route("POST", "/amount", take_amount, public=True),
    ]


async def test_no_value_of_any_type_is_a_500(app: Starlette, log_lines: list[logging.LogRecord]) -> None:
    """A value is answered, or refused as a client's fault; no value causes an error in the log."""
    refused = 0
    for name in KINDS:
        for value in NASTY:
            shown = await call(app, "GET", f"/show/{name}/{value}")
            asked = await call(app, "GET", f"/ask/{name}?value={value}")

            if shown.status != 200:
                assert_problem(shown, 404, "not_found")
                refused += 1
            if asked.status != 200:
                assert_problem(asked, 400, "invalid_parameter")
                assert "value" in asked.json["detail"] or "UTF-8" in asked.json["detail"]
                refused += 1
    assert refused > len(KINDS) * len(NASTY)
    assert [one.getMessage() for one in log_lines if one.exc_info] == []


@pytest.mark.parametrize("path", ["/number/" + "9" * 5000, "/weekday/sunday"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_value_that_a_convertor_refuses_names_nothing(app: Starlette, path: str, method: str) -> None:
    assert_problem(await call(app, method, path), 404, "not_found")


async def test_a_value_that_a_convertor_takes_is_found(app: Starlette) -> None:
    assert (await call(app, "GET", "/number/7")).json == {"text": "7"}
    assert (await call(app, "GET", "/weekday/tue")).json == {"text": "tuesday"}


@pytest.mark.parametrize(
    "query, words",
    [
        ("from=253402300800", "The parameter 'from' is wrong: the value is out of range"),
        ("from=9999-12-31T00:00:00Z&days=9", "The query is wrong: the value is out of range"),
    ],
)
async def test_the_parameter_is_named_as_far_as_it_is_known(app: Starlette, query: str, words: str) -> None:
    answer = await call(app, "GET", f"/period?{query}")

    assert_problem(answer, 400, "invalid_parameter")
    assert answer.json["detail"].startswith(words)


async def test_a_struct_that_refuses_its_query_is_the_clients_fault(app: Starlette) -> None:
    assert_problem(await call(app, "GET", "/amount?amount=much"), 400, "invalid_parameter")
    assert (await call(app, "GET", "/amount?amount=7")).json == {"text": "7"}


@pytest.mark.parametrize(
    "path, body",
    [("/period", {"from": "9999-12-31T00:00:00Z", "days": 9}), ("/amount", {"amount": "much"})],
)
async def test_a_struct_that_refuses_its_body_is_the_clients_fault(
    app: Starlette, path: str, body: dict[str, Any]
) -> None:
    answer = await call(app, "POST", path, body=body)

    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"] == [{"pointer": "", "detail": "the value is out of range or cannot be read"}]


async def test_a_body_that_goes_on_as_no_json_is_malformed_whatever_refused_it(app: Starlette) -> None:
    assert_problem(await call(app, "POST", "/amount", body=b'{"amount":"much"}x'), 400, "malformed_json")
