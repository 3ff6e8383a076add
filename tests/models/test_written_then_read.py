"""Values that the database sets are readable at the same moments on every server, and errors say when (R10, R11)."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Computed, ForeignKey, MetaData, String, func, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column, relationship

from latchkey.models import Base
from latchkey.models.errors import NotLoadedError
from latchkey.models.types import BigId, UtcDateTime, utc_now
from latchkey.service.database import SQLAlchemy
from tests.conftest import loading, tables_of
from tests.models.test_hooks import kinds

pytestmark = pytest.mark.usefixtures("tables")

Wire = Callable[[], AbstractContextManager[list[str]]]


class Stock(Base):
    """The base of the tables in this file."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class Item(Stock):
    """Columns that the database sets in each way, and relations of each kind."""

    __tablename__ = "stock_items"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    pieces: Mapped[int] = mapped_column()
    doubled: Mapped[int] = mapped_column(Computed("pieces * 2"))
    shelf: Mapped[str] = mapped_column(String(10), server_default=text("'A1'"))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())
    parts: Mapped[list["Part"]] = relationship(
        back_populates="item", lazy="raise", cascade="all, delete-orphan"
    )
    label: Mapped["Label | None"] = relationship(back_populates="item", lazy="raise")


class Kept(Item):
    """The same, selected again before COMMIT."""

    refresh_on_commit = True


class Part(Stock):
    __tablename__ = "stock_parts"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    item_id: Mapped[int | None] = mapped_column(ForeignKey("stock_items.id"))
    item: Mapped[Item | None] = relationship(back_populates="parts", lazy="raise")


class Label(Stock):
    __tablename__ = "stock_labels"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    item_id: Mapped[int | None] = mapped_column(ForeignKey("stock_items.id"))
    item: Mapped[Item | None] = relationship(back_populates="label", lazy="raise")


@pytest.fixture
async def tables(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(Stock.metadata, db):
        yield


async def test_everything_that_an_insert_set_can_be_read_at_once(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        item = await Item.create(pieces=func.abs(-3))

        assert (item.pieces, item.doubled, item.shelf) == (3, 6, "A1")
        assert item.changed_at
        await session.rollback()


async def test_a_verb_refreshes_at_once(db: SQLAlchemy, wire: Wire, database_url: str) -> None:
    async with db.scoped_session() as session:
        with wire() as commands:
            item = await Item.create(pieces=1, refresh=True)
            before = item.changed_at
            await item.update(pieces=Item.pieces + 1, refresh=True)
            assert (item.pieces, item.doubled) == (2, 4)
            item.pieces = 3
            await item.save(refresh=True)
            assert (item.pieces, item.doubled) == (3, 6)
            assert item.changed_at > before
            await session.commit()

    selects = ["INSERT", *loading(database_url), "SELECT", "UPDATE", "SELECT", "UPDATE", "SELECT"]
    assert kinds(commands) == [*selects, "COMMIT"]


async def test_on_a_plain_session_too(db: SQLAlchemy) -> None:
    async with AsyncSession(db.engine, expire_on_commit=False) as foreign:
        item = await Item.create(pieces=1, session=foreign)
        await item.update(pieces=2, refresh=True)
        assert item.doubled == 4
        await foreign.rollback()


AGAIN = "`await instance.refresh()`, or pass refresh=True to the verb that wrote it"


@pytest.mark.parametrize(
    ("model", "fix"),
    [
        (Item, f"{AGAIN}, before it is read."),
        (Kept, f"it is selected again before COMMIT; to read it earlier, {AGAIN}."),
    ],
)
async def test_the_error_says_when_an_updated_value_can_be_read(
    db: SQLAlchemy, model: type[Item], fix: str
) -> None:
    async with db.scoped_session() as session:
        item = await model.create(pieces=1)
        await item.update(pieces=2)

        for name in ("doubled", "changed_at"):
            with pytest.raises(NotLoadedError) as raised:
                getattr(item, name)
            assert str(raised.value).endswith(f" is not loaded: {fix}")
            assert f"{model.__name__}.{name}" in str(raised.value)

        await item.update(pieces=3, refresh=True)
        assert item.doubled == 6

        await session.rollback()


async def test_after_a_rollback_it_does_not_advise_an_argument_of_a_verb(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        item = await Item.create(pieces=1, auto_commit=True)
        await session.rollback()
        item.pieces = 2
        await session.rollback()

        with pytest.raises(
            NotLoadedError, match=r"is not loaded: `await instance.refresh\(\)` before it is read"
        ):
            item.shelf  # noqa: B018 - reading is the test


async def with_relations() -> Item:
    """Return an item whose part and label are not loaded."""
    item = await Item.create(pieces=1, auto_commit=True)
    await Part.create(item_id=item.id, auto_commit=True)
    await Label.create(item_id=item.id, auto_commit=True)
    return await Item.filter(id=item.id).one()


async def test_a_collection_that_is_not_loaded_is_named_as_assigned_and_not_as_read(db: SQLAlchemy) -> None:
    async with db.scoped_session():
        item = await with_relations()

        with pytest.raises(NotLoadedError) as raised:
            item.parts = []

    assert str(raised.value) == (
        "Item.parts is not loaded: name it in the query, `.load('parts')`, or `await instance.refresh('parts')` "
        "before it is assigned, which needs its current value."
    )


Assign = Callable[[Item, Part, Label], Any]
ASSIGNMENTS: dict[str, tuple[Assign, int, int]] = {
    "to one, to None": (lambda item, part, label: part.update(item=None), 0, 1),
    "to one, to another": (lambda item, part, label: part.update(item=Item(pieces=9)), 0, 1),
    "one to one": (lambda item, part, label: item.update(label=None), 1, 0),
    "many": (lambda item, part, label: item.update(parts=[Part(), Part()]), 2, 1),
}


@pytest.mark.parametrize(("assign", "parts", "labels"), ASSIGNMENTS.values(), ids=ASSIGNMENTS)
async def test_update_assigns_any_relation_that_is_not_loaded(
    db: SQLAlchemy, assign: Assign, parts: int, labels: int
) -> None:
    async with db.scoped_session() as session:
        await with_relations()
        session.expunge_all()
        item, part, label = await Item.filter().one(), await Part.filter().one(), await Label.filter().one()

        await assign(item, part, label)
        await session.commit()

    assert await Part.filter(item_id=item.id).count() == parts
    assert await Label.filter(item_id=item.id).count() == labels


async def test_a_relation_to_one_is_assigned_without_loading_it(db: SQLAlchemy, wire: Wire) -> None:
    async with db.scoped_session() as session:
        item = await with_relations()
        part = await Part.filter().one()
        with wire() as commands:
            part.item = None
            await session.commit()

    assert kinds(commands) == ["DELETE", "COMMIT"]  # as an orphan
    assert item.id
