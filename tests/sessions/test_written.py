"""Written rows are found again before COMMIT, and their hooks run, for models on any base (R10)."""

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any, ClassVar

import pytest
from sqlalchemy import JSON, Enum, Float, Integer, MetaData, Numeric, String, event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    ORMExecuteState,
    mapped_column,
    with_loader_criteria,
)
from starlette.requests import Request

from latchkey.models import Base
from latchkey.models.types import BigId, UtcDateTime, utc_now
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.routing import RoutingSession
from latchkey.service.database.session import RequestSession
from tests.conftest import tables_of
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route

pytestmark = pytest.mark.usefixtures("tables")


class Kept(Base):
    """The base of the tables in this file."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    __table_args__: Any = {"mysql_engine": "InnoDB"}  # noqa: RUF012 - as in Base


class Note(Kept):
    """A row that may be marked as deleted, refreshed on commit, with a hook."""

    __tablename__ = "written_notes"
    refresh_on_commit = True
    told: ClassVar[list[str]] = []

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    deleted: Mapped[bool] = mapped_column(default=False)
    data: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())

    async def after_commit(self, session: AsyncSession) -> None:
        self.told.append(self.name)


class Equal(Kept):
    """A model with its own equality, and therefore without a hash."""

    __tablename__ = "written_equal"
    refresh_on_commit = True

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    __hash__ = None  # type: ignore[assignment]  # as Python has it for a class with __eq__


class Other(MappedAsDataclass, DeclarativeBase):
    """Another base."""

    metadata = Kept.metadata


class Data(Other):
    """A dataclass, which has no hash either."""

    __tablename__ = "written_data"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50))


class Colour(enum.Enum):
    """An enum, for which some callers pass a text."""

    RED = "red"


class Measured(Kept):
    """Values that the database stores in another form, with a default of its own."""

    __tablename__ = "written_measured"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    price: Mapped[float] = mapped_column(Numeric(10, 2, asdecimal=False))
    size: Mapped[int] = mapped_column(server_default="7")
    weight: Mapped[float | None] = mapped_column(Float)
    colour: Mapped[Any] = mapped_column(Enum(Colour), nullable=True)


@pytest.fixture
async def tables(db: SQLAlchemy) -> AsyncIterator[None]:
    Note.told.clear()
    async with tables_of(Kept.metadata, db):
        yield


Change = Callable[[RequestSession], Awaitable[Any]]


async def in_all_places(db: SQLAlchemy, make_app: Any, change: Change) -> None:
    """Run a change in a block and in an endpoint; its assertions must hold in both."""
    async with db.scoped_session() as session:
        await change(session)
        await session.commit()

    async def endpoint(request: Request) -> None:
        await change(request.state.session)

    answer = await request(make_app(value_route(endpoint, "POST")), "POST", "/probe")
    assert answer.status == 200


# ---------------------------------------------------------------------- the refresh before COMMIT


def hide_deleted(state: ORMExecuteState) -> None:
    if state.is_select:
        state.statement = state.statement.options(
            with_loader_criteria(Note, lambda cls: cls.deleted.is_(False))
        )


@pytest.fixture
def soft_delete(db: SQLAlchemy) -> Iterator[None]:
    event.listen(RoutingSession, "do_orm_execute", hide_deleted)
    yield
    event.remove(RoutingSession, "do_orm_execute", hide_deleted)


@pytest.mark.usefixtures("soft_delete")
async def test_a_listener_that_hides_rows_hides_none_that_was_written(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    note = await Note.create(name="first", auto_commit=True)
    before = note.changed_at

    async def mark(session: RequestSession) -> datetime:
        row = await Note.get(note.id, session=session) or note
        row.deleted, row.name = True, f"{row.name}."
        session.add(row)
        await session.flush_and_refresh()
        return row.changed_at

    async def change(session: RequestSession) -> None:
        assert await mark(session) > before

    await in_all_places(db, make_app, change)


async def test_a_key_that_was_given_as_text_is_found(db: SQLAlchemy, make_app: MakeApp) -> None:
    numbers = iter(("5", "6"))

    async def change(session: RequestSession) -> None:
        note = Note(id=next(numbers), name="text")
        session.add(note)
        await session.flush()
        note.name = "changed"
        await session.flush_and_refresh()
        assert note.changed_at is not None

    await in_all_places(db, make_app, change)


async def test_tracked_attributes_stay_tracked(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        note = await Note.create(name="first", data={"a": 1}, refresh=True)
        await session.commit()
        assert note.data is not None
        note.data["b"] = 2
        await session.commit()

    assert (await Note.filter(name="first").one()).data == {"a": 1, "b": 2}


async def test_a_user_may_clear_the_info_of_a_session(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def change(session: RequestSession) -> None:
        note = await Note.create(name="first", session=session)
        session.info.clear()
        note.name = "second"
        await session.flush()
        session.info.clear()

    await in_all_places(db, make_app, change)

    assert Note.told == ["second", "second"]
    assert (await Note.filter(name="second").limit(1).one()).changed_at


async def test_models_without_a_hash_are_written_and_refreshed(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def change(session: RequestSession) -> None:
        one, two = Equal(name="one"), Equal(name="two")
        session.add_all([one, two])
        await session.flush()
        one.name, two.name = "uno", "due"
        await session.flush_and_refresh()
        assert (one.name, one.changed_at is not None) == ("uno", True)
        assert (two.name, two.changed_at is not None) == ("due", True)
        await session.delete(two)
        await session.flush()

    await in_all_places(db, make_app, change)


async def test_models_of_another_base_are_written_and_deleted(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def change(session: RequestSession) -> None:
        one, two = Data(name="one"), Data(name="two")
        session.add_all([one, two])
        await session.flush()
        one.name = "uno"
        await session.delete(two)

    await in_all_places(db, make_app, change)

    async with db.scoped_session() as session:
        assert list(await session.scalars(select(Data.name))) == ["uno", "uno"]


async def test_assigned_values_stay_as_assigned(db: SQLAlchemy) -> None:
    """As in any session, an INSERT loads only the generated values."""
    made = await Measured.create(price=3.14159, weight=0.1, colour="RED", auto_commit=True)

    assert (made.price, made.weight, made.size, made.colour) == (3.14159, 0.1, 7, "RED")
    assert (await Measured.filter().one()).colour is Colour.RED


# ---------------------------------------------------------------------- the hooks

ENDS: dict[str, Change] = {
    "close": lambda session: session.close(),
    "reset": lambda session: session.reset(),
    "invalidate": lambda session: session.invalidate(),
    "rollback": lambda session: session.rollback(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_no_hook_runs_for_rows_that_never_were(db: SQLAlchemy, make_app: MakeApp, end: Change) -> None:
    async def change(session: RequestSession) -> None:
        await Note.create(name="gone", session=session)
        await end(session)
        await Note.create(name="kept", session=session)

    await in_all_places(db, make_app, change)

    assert Note.told == ["kept", "kept"]


async def test_no_hook_runs_for_rows_of_a_savepoint_that_was_closed(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        await Note.create(name="kept")
        await session.begin_nested()
        await Note.create(name="gone")
        await session.run_sync(lambda inner: inner.get_nested_transaction().close())
        async with session.begin_nested():
            await Note.create(name="kept too")
        await session.commit()

    assert Note.told == ["kept", "kept too"]
    assert await Note.filter().count() == 2
