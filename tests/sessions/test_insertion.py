"""A lone new instance is inserted past the unit of work, and nobody can tell by what is left afterwards."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import (
    Computed,
    ForeignKey,
    MetaData,
    String,
    event,
    func,
    inspect,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, StatementError
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.orm.unitofwork import UOWTransaction

from models import Base, User
from models.types import BigId, Json, UtcDateTime, Words, utc_now
from service import routing
from service.database import SQLAlchemy
from service.routing import RoutingSession
from tests.conftest import on_mariadb, tables_of


class Odd(Base):
    """A table for what the service's own models do not have."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    __table_args__: Any = {"mysql_engine": "InnoDB"}  # noqa: RUF012 - as in Base


class Parent(Odd):
    __tablename__ = "odd_parents"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    children: Mapped[list["Child"]] = relationship(back_populates="parent", lazy="raise")


class Child(Odd):
    """It has a default of each kind, and attributes that are called otherwise than their columns."""

    __tablename__ = "odd_children"
    id: Mapped[int] = mapped_column("child_id", BigId, primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("odd_parents.id"))
    called: Mapped[str | None] = mapped_column("name", String(50))
    kind: Mapped[str] = mapped_column(String(50), default="plain")
    words: Mapped[tuple[str, ...]] = mapped_column(Words, default=())
    data: Mapped[Any] = mapped_column(Json(dict[str, int]), nullable=True)
    size: Mapped[int] = mapped_column(server_default="7")
    made_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())
    seen_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    parent: Mapped[Parent | None] = relationship(back_populates="children", lazy="raise")


class Versioned(Odd):
    __tablename__ = "odd_versioned"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy reads it


class Double(Odd):
    __tablename__ = "odd_doubles"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    number: Mapped[int]
    twice: Mapped[int] = mapped_column(Computed("number * 2"))


class Animal(Odd):
    __tablename__ = "odd_animals"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(50))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Viewed(Odd):
    """A part of a table under another name."""

    __table__ = select(Parent.__table__).alias("viewed")


class Counted(Odd):
    __tablename__ = "odd_counted"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    number: Mapped[int] = mapped_column(default=lambda: next(numbers))


numbers = iter(range(1, 1000))


@pytest.fixture
async def tables(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(Odd.metadata, db):
        yield


MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)

LONE: dict[str, Callable[[], Base]] = {
    "a user": lambda: User(email="Ann@example.com", name="Ann"),
    "a user with every moment given": lambda: User(
        email="a@b", name="A", status="blocked", created_at=MOMENT, updated_at=MOMENT
    ),
    "a user with one moment given": lambda: User(email="a@b", name="A", created_at=MOMENT),
    "nothing given": Child,
    "everything given": lambda: Child(
        called="x", kind="y", words=("a", "b"), data={"a": 1}, size=3, made_at=MOMENT, seen_at=MOMENT
    ),
    "None given": lambda: Child(called=None, kind=None, words=None, data=None, size=None, seen_at=None),
    "what counts as nothing": lambda: Child(called="", words=(), size=0),
    "percent signs and quotes": lambda: Child(called="100 %s %(x)s ' \" \\ ü"),
    "more attributes than columns": lambda: Parent(name="p").set_session(None),
}

NOT_LONE: dict[str, Callable[[], Base | list[Base]]] = {
    "a key that is given": lambda: User(id=5, email="a@b", name="A"),
    "an expression": lambda: Child(called=func.lower("ABC")),
    "another expression": lambda: Child(size=literal(2) + 3),
    "one with an element": lambda: Child(called=type_coerce("x", String(50))),
    "one in a relation": lambda: Child(parent=Parent(name="p")),
    "one with a collection": lambda: Parent(name="p", children=[Child(called="c")]),
    "two": lambda: [Parent(name="p"), Parent(name="q")],
    "a version": Versioned,
    "a computed column": lambda: Double(number=4),
    "a subclass": Dog,
    "a superclass": Animal,
    "a callable default": Counted,
    "a table under another name": lambda: Viewed(name="p"),
}


@dataclass
class Flushed:
    """All that can be seen of instances after a flush."""

    states: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    by_unit_of_work: bool


def settled(values: dict[str, Any]) -> dict[str, Any]:
    """Let what differs from one run to the next be the same: ids, moments of now, and what is only ours."""
    shown = {
        name: "now" if isinstance(value, datetime) and value != MOMENT else value
        for name, value in values.items()
        if not isinstance(value, Base | list)
    }
    return {
        name: type(value) if name in {"id", "child_id", "parent_id", "number"} else value
        for name, value in shown.items()
    }


def seen(instance: Base) -> dict[str, Any]:
    state: Any = inspect(instance)
    return {
        "values": settled(
            {name: value for name, value in vars(instance).items() if name != "_sa_instance_state"}
        ),
        "persistent": state.persistent,
        "key": (state.key[0], state.key[1] == state.mapper.primary_key_from_instance(instance)),
        "found": state.session.identity_map[state.key] is instance,
        "unloaded": set(state.unloaded),
        "expired": state.expired_attributes,
        "modified": state.modified,
        "history": state.committed_state,
        "clean": state.session._is_clean(),
    }


async def flush(
    db: SQLAlchemy, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, *, usual: bool
) -> Flushed:
    """Flush what `make` makes, as ever or as it is now, and roll it back."""
    worked = []
    execute = UOWTransaction.execute
    with monkeypatch.context() as patch:
        patch.setattr(UOWTransaction, "execute", lambda self: worked.append(self) or execute(self))
        if usual:
            patch.setattr(routing, "insert_lone", lambda *_arguments: False)
        async with db.scoped_session() as session:
            made = make()
            instances = made if isinstance(made, list) else [made]
            session.add_all(instances)
            await session.flush()
            states = [seen(one) for one in instances]
            models = {type(one) for one in instances}
            rows = [
                settled(dict(row))
                for model in sorted(models, key=lambda one: one.__name__)
                for row in (await session.execute(select(model.__table__))).mappings()
            ]
            await session.rollback()
            assert [inspect(one).transient for one in instances] == [True] * len(instances)
            assert not session.sync_session.identity_map
    return Flushed(states, rows, bool(worked))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("make", "is_lone"),
    [pytest.param(make, True, id=name) for name, make in LONE.items()]
    + [pytest.param(make, False, id=name) for name, make in NOT_LONE.items()],
)
async def test_it_leaves_what_a_unit_of_work_leaves(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any], is_lone: bool
) -> None:
    async with db.engine.connect():  # the first connection tells what the server can
        pass

    usual = await flush(db, make, monkeypatch, usual=True)
    now = await flush(db, make, monkeypatch, usual=False)

    assert usual.by_unit_of_work
    assert now.by_unit_of_work is not is_lone
    assert now.states == usual.states
    assert now.rows == usual.rows
    assert now.rows


@pytest.mark.usefixtures("tables")
async def test_another_change_beside_it_is_the_unit_of_work_s(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its order is the unit of work's business: a row may refer to one that is changed, or deleted."""
    worked = []
    execute = UOWTransaction.execute
    monkeypatch.setattr(UOWTransaction, "execute", lambda self: worked.append(self) or execute(self))
    async with db.scoped_session() as session:
        parent, other = Parent(name="p"), Parent(name="q")
        session.add(parent)
        await session.flush()
        session.add(other)
        await session.flush()
        assert worked == []

        parent.name = "changed"
        session.add(Child(called="beside a change"))
        await session.flush()
        await session.delete(other)
        session.add(Child(called="beside a deletion"))
        await session.flush()
        await session.commit()
        names = (await session.execute(select(Parent.name))).scalars().all()

    assert len(worked) == 2
    assert names == ["changed"]


LISTENERS = {
    "before_insert": (Child, 3),
    "after_insert": (Child, 3),
    "before_flush": (RoutingSession, 3),
    "after_flush": (RoutingSession, 2),
    "after_flush_postexec": (RoutingSession, 2),
    "pending_to_persistent": (RoutingSession, 2),
    "refresh_flush": (Child, 3),
}


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(("name", "target", "arguments"), [(n, *t) for n, t in LISTENERS.items()])
async def test_who_listens_is_told(db: SQLAlchemy, name: str, target: Any, arguments: int) -> None:
    told = []

    def listen(*given: Any) -> None:
        told.append(given)

    event.listen(target, name, listen)
    try:
        async with db.scoped_session() as session:
            session.add(Child(called="x"))
            await session.flush()
            await session.rollback()
    finally:
        event.remove(target, name, listen)

    assert [len(one) for one in told] == [arguments]
    assert all(part is not None for part in told[0][: 2 if name != "before_flush" else 1])


async def test_an_insert_that_fails_wants_its_transaction_rolled_back(db: SQLAlchemy, first: int) -> None:
    """Else what was written before it is lost without a word."""
    async with db.scoped_session() as session:
        await User.create(email="before@example.com", name="before")
        double = User(email="first@example.com", name="again")
        session.add(double)
        with pytest.raises(IntegrityError) as caught:
            await session.flush()
        assert "first@example.com" not in str(caught.value).replace(str(caught.value.orig), "")
        assert inspect(double).transient

        with pytest.raises(PendingRollbackError):
            await session.commit()
        await session.rollback()
        await User.create(email="anew@example.com", name="anew")
        await session.commit()

        names = (await session.execute(select(User.name).order_by(User.id))).scalars().all()
    assert names == ["first", "second", "anew"]


async def test_a_savepoint_takes_it_back(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        kept = await User.create(email="kept@example.com", name="kept")
        nested = await session.begin_nested()
        gone = await User.create(email="gone@example.com", name="gone")
        await nested.rollback()
        await session.commit()

        names = (await session.execute(select(User.name))).scalars().all()
        assert (names, inspect(kept).persistent, inspect(gone).transient) == (["kept"], True, True)


async def test_a_value_that_no_column_takes_is_refused_in_the_usual_words(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        session.add(User(email="a@b", name="A", created_at=datetime(2026, 1, 2)))  # noqa: DTZ001 - that is it
        with pytest.raises(StatementError, match="has no zone"):
            await session.flush()
        await session.rollback()


@on_mariadb
async def test_a_connection_that_died_fails_it_and_the_next_one_is_good(db: SQLAlchemy) -> None:
    async with db.engine.connect() as connection:
        dead = (await connection.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one()
    async with db.reader.connect() as other:
        await other.exec_driver_sql(f"KILL {dead}")

    async with db.scoped_session() as session:
        with pytest.raises(DBAPIError) as caught:
            await User.create(email="a@b", name="A")
        assert caught.value.connection_invalidated
        await session.rollback()
        await User.create(email="a@b", name="A")
        await session.commit()
