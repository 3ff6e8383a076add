"""A value that its column cannot hold is one 422 on every server, with a pointer, and nothing is stored."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Text,
    insert,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import Base
from latchkey.models.bounds import check_of
from latchkey.models.errors import InvalidValueError
from latchkey.models.limit import Quota
from latchkey.models.types import BigId, Binary, BinaryText, Json, Words
from latchkey.service.operation import Operation, route
from tests import mysql as mysql_server
from tests.api import assert_problem, call
from tests.conftest import on_mariadb, tables_of


class Holding(Base):
    """The base of the table in this file."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class Parcel(Holding):
    """Columns with bounds."""

    __tablename__ = "parcels"
    __table_args__ = (CheckConstraint("pieces < 1000", "pieces_bound"), Base.__table_args__)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    title: Mapped[str] = mapped_column(String(10))
    pieces: Mapped[int] = mapped_column(SmallInteger, default=1)
    price: Mapped[Decimal | None] = mapped_column(Numeric(6, 2))


class Other(DeclarativeBase):
    """Another base."""

    metadata = Holding.metadata


class Label(Other):
    """A table of another base, in a character set that cannot store every text."""

    __tablename__ = "labels"
    __table_args__: Any = {"mysql_engine": "InnoDB", "mysql_charset": "latin1"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(10))


class Inside(msgspec.Struct):
    """A part of a body."""

    title: str = "x"


class NewParcel(msgspec.Struct, rename={"pieces": "numberOf/Pieces"}):
    """A body without bounds."""

    title: str = "x"
    pieces: int = 1
    price: Decimal | None = None
    parts: list[Inside] = []


class Made(msgspec.Struct):
    """The answer."""

    id: int


async def create(body: NewParcel) -> Made:
    parcel = await Parcel.create(title=body.title, pieces=body.pieces, price=body.price)
    for part in body.parts:
        await Parcel.create(title=part.title)
    return Made(parcel.id)


async def change(body: NewParcel) -> Made:
    parcel = await Parcel.create(title="x")
    parcel.title = body.title
    await parcel.update(pieces=body.pieces, price=body.price)
    return Made(parcel.id)


async def change_all(body: NewParcel) -> Made:
    return Made(await Parcel.filter().update(title=body.title, pieces=body.pieces, price=body.price))


async def create_by_core(request: Request, body: NewParcel) -> Made:
    values = {"title": body.title, "pieces": body.pieces, "price": body.price}
    await request.state.session.execute(insert(Parcel).values(values))
    return Made(0)


async def create_label(request: Request, body: NewParcel) -> Made:
    request.state.session.add(Label(title=body.title))
    return Made(0)


async def create_from_elsewhere() -> Made:
    return Made((await Parcel.create(title="private" * 10)).id)


PATHS: dict[str, Callable[..., Awaitable[Any]]] = {
    "/create": create,
    "/change": change,
    "/change-all": change_all,
}


@pytest.fixture
def routes() -> Sequence[Operation]:
    more: dict[str, Callable[..., Awaitable[Any]]] = {
        "/core": create_by_core,
        "/label": create_label,
        "/elsewhere": create_from_elsewhere,
    }
    return [route("POST", path, endpoint, public=True) for path, endpoint in (PATHS | more).items()]


@pytest.fixture(autouse=True)
async def tables(app: Starlette) -> AsyncIterator[None]:
    async with tables_of(Holding.metadata, app.state.db):
        yield


BODIES = {
    "too long": ({"title": "private text"}, "/title", "the value is too long; at most 10 characters are allowed"),
    "too long in UTF-16": ({"title": "🔑" * 11}, "/title", "the value is too long; at most 10 characters are allowed"),
    "too large": (
        {"numberOf/Pieces": 40000}, "/numberOf~1Pieces", "the value is out of range; it must be from -32768 to 32767"
    ),
    "too small": (
        {"numberOf/Pieces": -40000}, "/numberOf~1Pieces", "the value is out of range; it must be from -32768 to 32767"
    ),
    "too many digits": ({"price": 12345}, "/price", "the value is out of range; it must be below 10000"),
}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_it_is_refused_with_a_pointer(app: Starlette, path: str) -> None:
    for body, pointer, detail in BODIES.values():
        answer = await call(app, "POST", path, body=body)

        assert_problem(answer, 422, "invalid_body")
        assert answer.json["errors"] == [{"pointer": pointer, "detail": detail}]
        assert b"private" not in answer.body
    assert await Parcel.filter().count() == 0


async def test_a_part_of_the_body_has_a_pointer(app: Starlette) -> None:
    answer = await call(app, "POST", "/create", body={"parts": [{"title": "y"}, {"title": "private text"}]})

    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"][0]["pointer"] == "/parts/1/title"
    assert await Parcel.filter().count() == 0


async def test_a_value_that_is_not_in_the_body_has_no_pointer(app: Starlette) -> None:
    answer = await call(app, "POST", "/elsewhere")

    assert_problem(answer, 422, "invalid_value")
    assert b"private" not in answer.body


@pytest.mark.parametrize("path", PATHS)
async def test_values_at_the_bounds_are_stored(app: Starlette, path: str) -> None:
    await Parcel.create(title="old", auto_commit=True)
    body = {"title": "🔑" * 10, "numberOf/Pieces": -32768, "price": "9999.99"}

    answer = await call(app, "POST", path, body=body)

    assert answer.status == 200
    found = await Parcel.filter(title="🔑" * 10).one()
    assert (found.pieces, found.price) == (-32768, Decimal("9999.99"))


async def test_a_violated_check_is_a_conflict_on_every_server(app: Starlette) -> None:
    answer = await call(app, "POST", "/create", body={"numberOf/Pieces": 1000})

    assert_problem(answer, 409, "conflict")


@on_mariadb
@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/core", {"title": "private text"}, "/title"),
        ("/core", {"price": "12345"}, "/price"),
    ],
)
async def test_values_that_only_the_server_refuses_are_answered_alike(
    app: Starlette, path: str, body: dict[str, Any], pointer: str
) -> None:
    answer = await call(app, "POST", path, body=body)

    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"] == [{"pointer": pointer, "detail": "the database cannot store the value"}]


@on_mariadb
async def test_a_text_that_the_character_set_does_not_have_is_refused(app: Starlette) -> None:
    """MySQL does not name the column."""
    answer = await call(app, "POST", "/label", body={"title": "日本"})

    assert_problem(answer, 422, "invalid_value" if mysql_server.is_chosen() else "invalid_body")


async def test_the_error_names_the_attribute_and_not_the_value(app: Starlette) -> None:
    async with app.state.db.scoped_session() as session:
        with pytest.raises(InvalidValueError) as raised:
            await Parcel.create(title="private text")
        await session.rollback()

    assert str(raised.value) == "Parcel.title: the value is too long; at most 10 characters are allowed."


HUGE = "9" * 100_000
CHECKED: list[tuple[Any, list[Any], list[Any]]] = [
    (String(3), ["abc", "", "日本語"], ["abcd"]),
    (Text(), ["a" * 65_535], ["a" * 65_536, "日" * 30_000]),
    (mysql.MEDIUMTEXT(), [HUGE], []),
    (mysql.TINYTEXT(), ["a" * 255], ["a" * 256]),
    (LargeBinary(), [b"a" * 65_535], [b"a" * 65_536]),
    (Binary(2), [b"ab"], [b"abc"]),
    (BinaryText(3), ["日"], ["日本"]),
    (Words(), [("a", "b")], [(HUGE,)]),
    (Json(Quota), [None], []),
    (
        Integer(),
        [2**31 - 1, -(2**31), True, "5", 2.0],
        [2**31, -(2**31) - 1, 1.5, "five", math.inf, Decimal("1.5")],
    ),
    (SmallInteger(), [32767], [32768]),
    (BigInteger(), [2**63 - 1], [2**63]),
    (BigId, [2**63 - 1], [2**63]),
    (mysql.INTEGER(unsigned=True), [0, 2**32 - 1], [-1, 2**32]),
    (mysql.TINYINT(), [127], [128]),
    (mysql.MEDIUMINT(), [2**23 - 1], [2**23]),
    (Numeric(4, 1), [Decimal("999.9"), -1], [Decimal(1000), -1000.0, Decimal("NaN"), math.inf]),
    (Float(), [3e38], [4e38, math.nan]),
    (Double(), [1e308], [math.inf]),
]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_type_has_the_bounds_of_mariadb_and_mysql(app: Starlette) -> None:
    for kind, fits, others in CHECKED:
        check = check_of(kind) or (lambda _value: None)
        assert [one for one in fits if one is not None and check(one) is not None] == [], kind
        assert [one for one in others if check(one) is None] == [], kind
