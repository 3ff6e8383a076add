"""NaN and Infinity are no numbers for an endpoint, wherever a call carries them."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta
from starlette.applications import Starlette

from latchkey.service.operation import Operation, route
from tests.api import assert_problem, call

WORDS = ["NaN", "sNaN", "-Infinity", "inf"]


class Line(msgspec.Struct, rename={"unit_price": "unit-price"}):
    unit_price: Decimal


class Order(msgspec.Struct):
    lines: list[Line] = []
    prices: dict[str, Decimal | None] = {}
    note: str = ""


class Range(msgspec.Struct):
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0
    price: Decimal = Decimal(0)


async def order(body: Order) -> Order:
    """Compare, which raises an error for NaN."""
    assert all(line.unit_price >= 0 for line in body.lines)
    return body


async def find_range(query: Range) -> Range:
    """Return the query."""
    return query


async def find_price(price: Decimal) -> Range:
    """Return the price."""
    return Range(price=price)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("POST", "/v1/orders", order, public=True),
        route("GET", "/v1/ranges", find_range, public=True),
        route("GET", "/v1/prices/{price}", find_price, public=True),
    )


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (lambda word: {"lines": [{"unit-price": "1.5"}, {"unit-price": word}]}, "/lines/1/unit-price"),
        (lambda word: {"prices": {"a": None, "b": word}}, "/prices/..."),
    ],
)
async def test_a_body_is_refused_with_a_pointer(app: Starlette, word: str, body: Any, pointer: str) -> None:
    answer = await call(app, "POST", "/v1/orders", body=body(word))

    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"] == [{"pointer": pointer, "detail": "Expected a finite number"}]


@pytest.mark.parametrize("word", WORDS)
async def test_a_query_and_a_path_are_refused(app: Starlette, word: str) -> None:
    for name in ("price", "ratio"):
        assert_problem(await call(app, "GET", f"/v1/ranges?{name}={word}"), 400, "invalid_parameter")
    assert_problem(await call(app, "GET", f"/v1/prices/{word}"), 404, "not_found")


async def test_the_word_stays_a_text_and_a_number_a_number(app: Starlette) -> None:
    body = {"note": "NaN", "lines": [{"unit-price": "1.50"}], "prices": {"a": "2"}}

    assert (await call(app, "POST", "/v1/orders", body=body)).json == body
    assert (await call(app, "GET", "/v1/prices/1.5")).json == {"ratio": 0, "price": "1.5"}
