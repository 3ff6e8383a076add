"""`get_or_create`: one row, however many callers ask for it at once."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from sqlalchemy.exc import IntegrityError

from latchkey.models.errors import LostWriteError, UnknownLookupError
from latchkey.service.database import SQLAlchemy
from tests.models.newspaper import Article, Author, Desk, Tag
from tests.models.test_hooks import kinds

pytestmark = pytest.mark.usefixtures("articles")

Listen = Callable[[], AbstractContextManager[list[str]]]


async def test_it_returns_the_row_and_whether_it_is_new(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        news, is_new = await Tag.get_or_create(name="news")
        assert (news.id, is_new) == (1, False)
        art, is_new = await Tag.get_or_create(name="art")
        assert is_new
        assert (await Tag.get_or_create(name="art")) == (art, False)
        assert not art.served
        await session.commit()

    assert await Tag.filter().count() == 3


async def test_defaults_are_for_a_new_row_only(db: SQLAlchemy) -> None:
    defaults = {"title": "Given", "author_id": 1}
    one, _ = await Article.get_or_create(slug="one", defaults=defaults, auto_commit=True)
    four, is_new = await Article.get_or_create(slug="four", defaults=defaults, auto_commit=True)

    assert one.title == "One"
    assert (four.title, four.author_id, is_new) == ("Given", 1, True)


async def test_a_relation_identifies_a_row(db: SQLAlchemy) -> None:
    bob = await Author.filter(name="Bob").one()
    desk, is_new = await Desk.get_or_create(author=bob, defaults={"place": "door"}, auto_commit=True)
    again, is_new_again = await Desk.get_or_create(author=bob, auto_commit=True)

    assert (is_new, is_new_again) == (True, False)
    assert again.id == desk.id


async def test_a_row_that_is_there_costs_a_select(db: SQLAlchemy, wire: Listen) -> None:
    async with db.scoped_session():
        with wire() as commands:
            await Tag.get_or_create(name="news")

    assert kinds(commands) == ["SELECT"]


async def insert_meanwhile(name: str) -> None:
    await asyncio.create_task(Tag.create(name=name, auto_commit=True))


async def test_a_row_that_was_inserted_meanwhile_is_found(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    first = type(Tag.filter()).first

    async def first_of_nothing(query: object) -> object:
        nonlocal asked
        asked += 1
        found = await first(query)  # type: ignore[arg-type]  # as a method
        if asked == 1:
            await insert_meanwhile("art")
        return found

    monkeypatch.setattr(type(Tag.filter()), "first", first_of_nothing)
    async with db.scoped_session() as session:
        found, is_new = await Tag.get_or_create(name="art", session=session)
        assert not is_new
        assert found.name == "art"
        await session.commit()

    assert await Tag.filter(name="art").count() == 1


async def test_the_rest_of_the_transaction_is_kept(db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    async with db.scoped_session() as session:
        await Tag.create(name="kept")
        with pytest.raises(IntegrityError):
            await Article.get_or_create(id=9, slug="one", defaults={"title": "x", "author_id": 1})
        await session.commit()

    assert await Tag.filter(name="kept").exists()


async def test_mistakes_are_named_before_a_statement_is_sent(db: SQLAlchemy, wire: Listen) -> None:
    with wire() as commands:
        with pytest.raises(TypeError, match="no unique constraint covers title, so two calls at once"):
            await Article.get_or_create(title="One", auto_commit=True)
        with pytest.raises(UnknownLookupError, match="nmae"):
            await Tag.get_or_create(nmae="x", auto_commit=True)
        with pytest.raises(LostWriteError, match=r"Tag\.get_or_create would be lost"):
            await Tag.get_or_create(name="x")

    assert commands == []
