"""R11 for every way in which an attribute stays unloaded, on Latchkey's base and on another one; pickled and copied."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, create_engine, inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    defer,
    deferred,
    load_only,
    mapped_column,
    raiseload,
    relationship,
)
from sqlalchemy.orm.exc import DetachedInstanceError
from starlette.requests import Request

from latchkey.models import Base, User
from latchkey.models.errors import NotLoadedError
from latchkey.models.types import BigId
from latchkey.service.database import SQLAlchemy
from tests.conftest import tables_of
from tests.requests import request
from tests.sessions.conftest import MakeApp, make_app
from tests.sessions.endpoints import value_route

__all__ = ["make_app"]  # a fixture of another folder


class Ours(Base):
    __abstract__ = True
    metadata = MetaData()


class Foreign(DeclarativeBase):
    """A base without Latchkey's verbs."""


class Shelf(Ours):
    __tablename__ = "loading_shelves"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    note: Mapped[str | None] = deferred(mapped_column(String(50)))

    books: Mapped[list["Book"]] = relationship(back_populates="shelf")
    titles: AssociationProxy[list[str]] = association_proxy("books", "title")


class Book(Ours):
    __tablename__ = "loading_books"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    shelf_id: Mapped[int] = mapped_column(ForeignKey("loading_shelves.id"))

    shelf: Mapped[Shelf] = relationship(back_populates="books")
    shelf_name: AssociationProxy[str] = association_proxy("shelf", "name")


class Crate(Foreign):
    __tablename__ = "loading_crates"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    note: Mapped[str | None] = deferred(mapped_column(String(50)))

    books: Mapped[list["Item"]] = relationship(back_populates="shelf")
    titles: AssociationProxy[list[str]] = association_proxy("books", "title")


class Item(Foreign):
    __tablename__ = "loading_items"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    shelf_id: Mapped[int] = mapped_column(ForeignKey("loading_crates.id"))

    shelf: Mapped[Crate] = relationship(back_populates="books", lazy="raise")
    shelf_name: AssociationProxy[str] = association_proxy("shelf", "name")


OURS = pytest.param(Shelf, Book, id="our base")
FOREIGN = pytest.param(Crate, Item, id="another base")
both_bases = pytest.mark.parametrize("shelf, book", [OURS, FOREIGN])


@pytest.fixture
async def rows(db: Any) -> Any:
    async with tables_of(Ours.metadata, db), tables_of(Foreign.metadata, db):
        async with db.scoped_session() as session:
            for shelf, book in ((Shelf, Book), (Crate, Item)):
                session.add(shelf(id=1, name="left", note="oak", books=[book(id=1, title="Emma")]))
            await session.commit()
        yield


# The attribute that is left out, how it is read, and the name in the error.
CASES = [
    pytest.param(0, (), "books", "books", id="a relation to many"),
    pytest.param(1, (), "shelf", "shelf", id="a relation to one"),
    pytest.param(0, (), "note", "note", id="a deferred column"),
    pytest.param(0, (lambda model: load_only(model.id),), "name", "name", id="left out by load_only"),
    pytest.param(0, (lambda model: defer(model.name),), "name", "name", id="deferred by the query"),
    pytest.param(0, (lambda model: defer(model.name, raiseload=True),), "name", "name", id="refused by the query"),
    pytest.param(0, (lambda model: raiseload(model.books),), "books", "books", id="a relation refused by the query"),
    pytest.param(0, (), "titles", "books", id="a proxy of a relation to many"),
    pytest.param(1, (), "shelf_name", "shelf", id="a proxy of a relation to one"),
]  # fmt: skip


def read(instance: Any, name: str) -> None:
    found = getattr(instance, name)
    len(found)  # a proxy of many reads when it is used


@both_bases
@pytest.mark.parametrize("which, options, name, named", CASES)
async def test_unloaded_attributes_are_named_attached_and_detached(
    db: SQLAlchemy,
    rows: Any,
    shelf: type[Any],
    book: type[Any],
    which: int,
    options: tuple[Any, ...],
    name: str,
    named: str,
) -> None:
    model = (shelf, book)[which]
    statement = select(model).options(*(option(model) for option in options))
    async with db.scoped_session() as session:
        one = (await session.execute(statement)).scalar_one()
        with pytest.raises(NotLoadedError) as attached:
            read(one, name)
        assert db.checked_out() == 0
    with pytest.raises(NotLoadedError) as detached:
        read(one, name)

    assert str(attached.value) == str(detached.value)
    assert str(detached.value).startswith(f"{model.__name__}.{named} is not loaded: ")
    assert ("session.refresh" in str(detached.value)) is (shelf is Crate)


@both_bases
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("which, options, name, named", CASES)
async def test_unloaded_attributes_are_named_in_an_endpoint(
    rows: Any,
    make_app: MakeApp,
    shelf: type[Any],
    book: type[Any],
    method: str,
    which: int,
    options: tuple[Any, ...],
    name: str,
    named: str,
) -> None:
    model = (shelf, book)[which]

    async def look(request: Request) -> str:
        statement = select(model).options(*(option(model) for option in options))
        one = (await request.state.session.execute(statement)).scalar_one()
        with pytest.raises(NotLoadedError) as missed:
            read(one, name)
        return str(missed.value)

    answer = await request(make_app(value_route(look, method)), method, "/probe")

    assert answer.json["seen"].startswith(f"{model.__name__}.{named} is not loaded: ")


@both_bases
async def test_an_expired_row_of_any_base_is_named(
    db: SQLAlchemy, rows: Any, shelf: type[Any], book: type[Any]
) -> None:
    async with db.scoped_session() as session:
        one = await session.get(shelf, 1)
        session.expire(one)
        with pytest.raises(
            NotLoadedError, match=rf"^{shelf.__name__}\.id, {shelf.__name__}\.name is not loaded"
        ):
            one.name  # noqa: B018 - reading is the test


@both_bases
async def test_the_named_fixes_work(db: SQLAlchemy, rows: Any, shelf: type[Any], book: type[Any]) -> None:
    async with db.scoped_session() as session:
        one = await session.get(shelf, 1)
        if shelf is Shelf:
            await one.refresh("note")
            await one.refresh("books")
        else:
            await session.refresh(one, ["note"])
            await session.refresh(one, ["books"])

        assert (one.note, list(one.titles)) == ("oak", ["Emma"])


@both_bases
async def test_inside_an_await_it_is_loaded_as_usual(
    db: SQLAlchemy, rows: Any, shelf: type[Any], book: type[Any]
) -> None:
    async with db.scoped_session() as session:
        one = (await session.execute(select(shelf).options(load_only(shelf.id)))).scalar_one()

        assert await session.run_sync(lambda _: (one.name, one.note, list(one.titles))) == (
            "left",
            "oak",
            ["Emma"],
        )


async def test_inside_an_await_a_relation_that_is_never_loaded_is_named(db: SQLAlchemy, rows: Any) -> None:
    async with db.scoped_session() as session:
        item = await session.get(Item, 1)
        with pytest.raises(NotLoadedError, match=r"^Item\.shelf is not loaded"):
            await session.run_sync(lambda _: item.shelf)


async def test_a_relation_whose_row_is_there_needs_no_query(db: SQLAlchemy, rows: Any) -> None:
    async with db.scoped_session() as session:
        shelf = await session.get(Shelf, 1)
        book = await session.get(Book, 1)

        assert book.shelf is shelf


@pytest.mark.parametrize("error", [InvalidRequestError, DetachedInstanceError, RuntimeError])
async def test_handlers_of_sqlalchemys_errors_catch_ours(
    db: SQLAlchemy, rows: Any, error: type[Exception]
) -> None:
    async with db.scoped_session() as session:
        crate = await session.get(Crate, 1)
    with pytest.raises(error):
        crate.books  # noqa: B018 - reading is the test


@both_bases
def test_a_plain_session_loads_as_usual(shelf: type[Any], book: type[Any]) -> None:
    engine = create_engine("sqlite://")
    shelf.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(shelf(id=1, name="left", note="oak", books=[book(id=1, title="Emma")]))
        session.commit()
        one = session.scalars(select(shelf).options(load_only(shelf.id))).one()

        assert (one.name, one.note, list(one.titles)) == ("left", "oak", ["Emma"])
        session.expire(one)
        assert one.name == "left"
    engine.dispose()


# ---------------------------------------------------------------------- pickled and copied


COPIES: list[Any] = [
    pytest.param(lambda one: pickle.loads(pickle.dumps(one)), id="pickled"),
    pytest.param(copy.copy, id="copied"),
    pytest.param(copy.deepcopy, id="copied deeply"),
]


@pytest.mark.parametrize("again", COPIES)
async def test_an_instance_that_is_served_can_be_pickled_and_copied(
    db: SQLAlchemy, ann: User, again: Callable[[Any], Any]
) -> None:
    async with db.scoped_session() as session:
        user = (await User.get(ann.id)).set_session(session)
        found = again(user)

        assert (found.name, found.served, user.served) == ("Ann", False, True)
        assert user in session


@pytest.mark.parametrize("again", COPIES)
async def test_a_copy_still_names_what_is_not_loaded(
    db: SQLAlchemy, rows: Any, again: Callable[[Any], Any]
) -> None:
    async with db.scoped_session() as session:
        shelf = (await session.execute(select(Shelf).options(load_only(Shelf.id)))).scalar_one()
        shelf.set_session(session)
        found = again(shelf)
    inspect(found)

    for name in ("name", "note", "books"):
        with pytest.raises(NotLoadedError, match=rf"^Shelf\.{name} is not loaded"):
            getattr(found, name)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_instance_that_is_served_can_be_pickled_in_an_endpoint(
    ann: User, make_app: MakeApp, method: str
) -> None:
    async def look(request: Request) -> str:
        user = (await User.get(ann.id)).set_session(request.state.session)
        return pickle.loads(pickle.dumps(user)).name

    answer = await request(make_app(value_route(look, method)), method, "/probe")

    assert answer.json == {"seen": "Ann"}
