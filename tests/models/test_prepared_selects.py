"""`prepared(select(…), into=Struct)`: aggregates, subqueries, windows, and their cost."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import bindparam, delete, exists, func, literal, select, text, union_all
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey import prepared
from latchkey.models import User
from latchkey.models.errors import NotInitialisedError, StructError
from latchkey.service.database import SQLAlchemy
from tests.conftest import on_mariadb

Listen = Callable[[], AbstractContextManager[list[str]]]


class Named(msgspec.Struct):
    name: str
    id: int


class Counted(msgspec.Struct, kw_only=True, rename="camel"):
    status: str
    how_many: int
    total: int
    mean: float
    newest: datetime
    any_ann: bool
    note: str = "none"


class Ranked(msgspec.Struct):
    name: str
    place: int
    before: str | None


BY_STATUS = prepared(
    select(
        User.status,
        func.count().label("how_many"),
        func.sum(User.id).label("total"),
        func.avg(User.id).label("mean"),
        func.max(User.created_at).label("newest"),
        (func.min(User.name) == "Ann").label("any_ann"),
    )
    .where(User.id.in_(bindparam("ids", expanding=True)), User.name != bindparam("but", ""))
    .group_by(User.status)
    .order_by(User.status),
    into=Counted,
)
_some = select(User.id, User.name).where(User.id >= bindparam("first")).cte("some")
RANKED = prepared(
    select(
        _some.c.name,
        func.rank().over(order_by=_some.c.name.desc()).label("place"),
        func.lag(_some.c.name).over(order_by=_some.c.name.desc()).label("before"),
    )
    .where(exists().where(User.id == _some.c.id, User.status == bindparam("status")))
    .order_by(text("place"))
    .limit(bindparam("limit"))
    .offset(bindparam("offset", 0)),
    into=Ranked,
)
EITHER = prepared(
    union_all(
        select(User.id, User.name).where(User.id == bindparam("id")),
        select(User.id + 100, literal("copy")).where(User.id == bindparam("id")),
    ),
    into=Named,
)
BY_NAME = prepared(select(User.id, User.name).where(User.name == bindparam("name")), into=Named)


@pytest.fixture
async def users(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        for number, name in enumerate(("Ann", "Bob", "Cyd"), start=1):
            status = "deleted" if name == "Cyd" else "active"
            await User.create(id=number, email=f"{name}@example.com", name=name, status=status)
        await session.commit()


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("way", ["reader", "writer", "a session of SQLAlchemy's own"])
async def test_rows_of_any_select_become_structs(db: SQLAlchemy, way: str) -> None:
    """The servers return different types for a sum, a mean and a comparison."""
    async with AsyncSession(db.reader) as plain, db.scoped_session() as session:
        if way == "writer":
            await session.connection()
        given = None if way in {"reader", "writer"} else plain
        active, deleted = await BY_STATUS.all(ids=[1, 2, 3], session=given)
        none = await BY_STATUS.all(ids=[], session=given)
        one = await BY_STATUS.one(ids=range(1, 4), but="Cyd", session=given)
        ranked = await RANKED.all(first=1, status="active", limit=5, session=given)
        second = await RANKED.one(first=1, status="active", limit=1, offset=1, session=given)
        either = await EITHER.all(id=2, session=given)
        newest = (await User.filter(id=2).one()).created_at
        await session.rollback()

    assert active == Counted(status="active", how_many=2, total=3, mean=1.5, newest=newest, any_ann=True)
    assert [type(one) for one in (active.total, active.mean, active.any_ann)] == [int, float, bool]
    assert (deleted.status, deleted.how_many, deleted.any_ann) == ("deleted", 1, False)
    assert (none, one) == ([], active)
    assert ranked == [Ranked("Bob", 1, None), Ranked("Ann", 2, "Bob")]
    assert second == ranked[1]
    assert either == [Named("Bob", 2), Named("copy", 102)]


@pytest.mark.usefixtures("users")
async def test_the_verbs_are_those_of_a_query(db: SQLAlchemy) -> None:
    assert await BY_NAME.one(name="Bob") == Named("Bob", 2)
    assert await BY_NAME.first(name="Bob") == Named("Bob", 2)
    assert await BY_NAME.first(name="Dan") is None
    assert await BY_NAME.all(name="Dan") == []
    with pytest.raises(NoResultFound):
        await BY_NAME.one(name="Dan")
    with pytest.raises(MultipleResultsFound):
        await EITHER.one(id=1)


@pytest.mark.usefixtures("users")
async def test_it_costs_one_command_and_is_compiled_once(
    db: SQLAlchemy, wire: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    await BY_NAME.one(name="Ann")

    def fail(*_: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("latchkey.service.database.prepared.Plan", fail)
    async with db.scoped_session() as session:
        with wire() as commands:
            await BY_NAME.one(name="Bob")
        assert session.untouched

    assert len(commands) == 1
    assert db.checked_out() == 0


@pytest.mark.usefixtures("users")
async def test_in_a_transaction_it_sees_what_was_written(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        user = await User.filter(name="Bob").one()
        await user.update(name="Bert")
        assert (await BY_NAME.one(name="Bert")).id == 2
        await session.rollback()
    assert await BY_NAME.first(name="Bert") is None


@pytest.mark.usefixtures("users")
async def test_one_that_locks_is_sent_to_the_writer(db: SQLAlchemy) -> None:
    locking = prepared(select(User.id, User.name).where(User.id == 2).with_for_update(), into=Named)
    async with db.scoped_session() as session:
        assert await locking.one() == Named("Bob", 2)
        assert session.on_writer
        await session.rollback()


@on_mariadb
@pytest.mark.usefixtures("users")
async def test_a_dead_pooled_connection_is_replaced(db: SQLAlchemy) -> None:
    async with db.reader.connect() as one, db.reader.connect() as two:
        ids = [(await each.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one() for each in (one, two)]
    async with db.engine.connect() as other:
        for dead in ids:
            await other.execute(text(f"KILL {dead}"))

    found = await asyncio.gather(*(BY_NAME.one(name="Bob") for _ in range(5)))
    assert found == [Named("Bob", 2)] * 5


@pytest.mark.parametrize(
    ("values", "says"),
    [
        pytest.param({}, "a value is missing for name", id="missing"),
        pytest.param({"name": "Ann", "nmae": 1}, "there is no bindparam nmae; there are: name", id="unknown"),
    ],
)
async def test_values_are_those_of_the_statement(db: SQLAlchemy, values: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        await BY_NAME.all(**values)


async def test_before_the_database_is_open_it_says_so() -> None:
    with pytest.raises(NotInitialisedError):
        await BY_NAME.all(name="Ann")


def struct(*fields: Any) -> Any:
    return msgspec.defstruct("Row", fields)


NAME = struct(("name", str))


@pytest.mark.parametrize(
    ("statement", "wanted", "says"),
    [
        pytest.param(select(User.id), NAME, r"Row\.name: the SELECT has no column of this name; it has id", id="a typo"),
        pytest.param(select(User.name), struct(("name", int)), r"Row\.name: it is int, and the column is String", id="another type"),
        pytest.param(select(User.name.label("n")), struct(("n", int)), r"Row\.n: it is int, and the column is String", id="another type, labelled"),
        pytest.param(select(User), NAME, r"select\(User\) selects entities", id="entities"),
        pytest.param(union_all(select(User), select(User)), NAME, "selects entities", id="a union of entities"),
        pytest.param(select(User.id, text("name")), NAME, r"text\('name'\) has no name", id="text"),
        pytest.param(delete(User), NAME, "only a SELECT can be prepared, not Delete", id="no SELECT"),
        pytest.param(select(User.name).where(User.id == bindparam("session")), NAME, "use another", id="session"),
        pytest.param(select(User.name), dict, "no msgspec.Struct", id="no Struct"),
    ],
)  # fmt: skip
def test_statements_that_cannot_work_are_refused_when_prepared(
    statement: Any, wanted: Any, says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        prepared(statement, into=wanted)


@pytest.mark.usefixtures("users")
async def test_a_value_that_does_not_fit_is_an_error_that_names_the_field(db: SQLAlchemy) -> None:
    null = prepared(select(func.max(User.name).label("name")).where(User.id == 9), into=NAME)
    broken = prepared(select(func.avg(User.id).label("name")), into=struct(("name", int)))
    nothing = prepared(
        select(func.sum(User.id).label("name")).where(User.id == 9), into=struct(("name", Decimal))
    )

    with pytest.raises(StructError, match=r"Row\.name: the value is NULL"):
        await null.one()
    with pytest.raises(StructError, match=r"Row\.name: the value is NULL"):
        await nothing.one()
    await User.filter(id=3).one()
    async with db.scoped_session() as session:
        await (await User.filter(id=1).one()).remove()
        with pytest.raises(StructError, match=r"Row\.name: Expected `int`"):
            await broken.one()
        await session.rollback()
