"""An integer of more than 64 bits is a 4xx on every server, wherever a call carries it to the database."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import bindparam, select
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import User
from latchkey.models.errors import InvalidValueError
from latchkey.models.lookups import Q
from latchkey.models.prepared import prepared
from latchkey.service.database import SQLAlchemy
from latchkey.service.operation import Operation, route
from tests.api import assert_problem, call

WIDE = [2**63, -(2**63) - 1, 2**64, 10**30]
BOUNDS = [2**63 - 1, -(2**63)]


class Row(msgspec.Struct):
    id: int


BY_ID = prepared(select(User.id).where(User.id == bindparam("id")), into=Row)
BY_IDS = prepared(select(User.id).where(User.id.in_(bindparam("ids", expanding=True))), into=Row)

READS: dict[str, Callable[[int], Awaitable[Any]]] = {
    "get": User.get,
    "get several": lambda number: User.get(number, number),
    "filter": lambda number: User.filter(id=number).first(),
    "filter by text": lambda number: User.filter(name=number).first(),
    "filter with an operator": lambda number: User.filter(id__lt=number).count(),
    "filter in": lambda number: User.filter(id__in=[1, number]).all(),
    "filter along a relation": lambda number: User.filter(keys__id=number).exists(),
    "alternatives": lambda number: User.filter(Q(name="x") | ~Q(id=number)).into(Row).all(),
    "into": lambda number: User.filter(id=number).into(Row).first(),
    "into in": lambda number: User.filter(id__in={1, number}).into(Row).all(),
    "update many": lambda number: User.filter(id=number).update(name="x", auto_commit=True),
    "delete many": lambda number: User.filter(id=number).delete(auto_commit=True),
    "prepared": lambda number: BY_ID.first(id=number),
    "prepared in": lambda number: BY_IDS.all(ids=[1, number]),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_it_is_refused_before_it_is_sent(db: SQLAlchemy, read: Callable[[int], Awaitable[Any]]) -> None:
    for number in WIDE:
        with pytest.raises(InvalidValueError, match=r"out of range; it must be from -9223372036854775808 to"):
            await read(number)
    assert db.checked_out() == 0
    if read is not READS["get several"]:
        for number in BOUNDS:
            await read(number)


@pytest.mark.parametrize("way", ["limit", "offset"])
async def test_a_number_of_rows_is_one_too(db: SQLAlchemy, way: str) -> None:
    with pytest.raises(InvalidValueError):
        getattr(User.filter(), way)(2**63)
    await getattr(User.filter(), way)(2**63 - 1).into(Row).all()


@pytest.mark.parametrize("number", [-(2**63) - 1, 2**64, 10**30])
async def test_a_condition_of_sqlalchemy_is_refused_by_the_driver(db: SQLAlchemy, number: int) -> None:
    with pytest.raises(InvalidValueError):
        await User.filter(User.id == number).into(Row).all()
    with pytest.raises(InvalidValueError):
        await User.filter(User.id == number).all()
    async with db.scoped_session() as session:
        await session.connection()
        with pytest.raises(InvalidValueError):
            await session.execute(select(User.id).where(User.id.in_([1, number])))
        await session.rollback()
    assert db.checked_out() == 0


# ---------------------------------------------------------------------- the routes of a team


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    numbers: list[int] = []
    number: int = 0


class Asked(msgspec.Struct):
    after: int = 0
    text: str = "0"


async def by_path(id: int) -> Row:
    return Row(await User.filter(id=id).count())


async def by_text(id: str) -> Row:
    return Row(await User.filter(User.id == int(id)).count())


async def by_query(query: Asked) -> Row:
    return Row(await User.filter(id__gt=query.after, id__ne=int(query.text)).count())


async def by_body(body: Wanted) -> Row:
    return Row((await User.filter(id__in=[*body.numbers, body.number]).into(Row).first()) is not None)


async def by_session(request: Request, body: Wanted) -> Row:
    rows = await request.state.session.execute(select(User.id).where(User.id == body.number))
    return Row(len(rows.all()))


@pytest.fixture
def routes() -> Sequence[Operation]:
    return [
        route("GET", "/path/{id}", by_path, public=True, answers=Row),
        route("GET", "/text/{id}", by_text, public=True, answers=Row),
        route("GET", "/query", by_query, public=True, answers=Row),
        route("POST", "/body", by_body, public=True, answers=Row),
        route("POST", "/session", by_session, public=True, answers=Row),
    ]


@pytest.mark.parametrize("number", WIDE)
async def test_a_path_with_it_does_not_exist(app: Starlette, number: int) -> None:
    assert_problem(await call(app, "GET", f"/path/{number}"), 404, "not_found")


@pytest.mark.parametrize("number", [2**64, 10**30])
async def test_a_path_that_the_endpoint_reads_itself_does_not_either(app: Starlette, number: int) -> None:
    assert_problem(await call(app, "GET", f"/text/{number}"), 404, "not_found")


@pytest.mark.parametrize("name", ["after", "text"])
async def test_a_parameter_is_named(app: Starlette, name: str) -> None:
    for number in WIDE:
        answer = await call(app, "GET", f"/query?{name}={number}")

        assert_problem(answer, 400, "invalid_parameter")
        assert f"'{name}' is wrong: the value is out of range" in answer.json["detail"]


@pytest.mark.parametrize(
    "path, body, pointer",
    [
        ("/body", {"number": 10**19}, "/number"),
        ("/body", {"numbers": [1, 10**19]}, "/numbers/1"),
        ("/session", {"number": 10**30}, "/number"),
    ],
)
async def test_a_field_has_a_pointer(app: Starlette, path: str, body: Any, pointer: str) -> None:
    answer = await call(app, "POST", path, body=body)

    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"][0]["pointer"] == pointer
