"""UPDATE and DELETE of many rows: the same rows on every server, and nothing passed by."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from latchkey.models import User
from latchkey.models.errors import BulkError, LostWriteError, UnknownLookupError
from latchkey.models.lookups import Q
from latchkey.models.query import Query
from latchkey.service.database import SQLAlchemy
from tests.models.newspaper import Advertisement, Article, Author, Comment, Page
from tests.models.refresh_models import Hooked
from tests.models.test_hooks import kinds

pytestmark = pytest.mark.usefixtures("articles")

Listen = Callable[[], AbstractContextManager[list[str]]]


async def views() -> dict[str, int]:
    return {one.slug: one.views for one in await Article.filter().all()}


QUERIES: dict[str, tuple[Callable[[], Query[Article]], dict[str, int]]] = {
    "all": (Article.filter, {"one": 4, "two": 1, "three": 1}),
    "some": (lambda: Article.filter(author_id=2), {"one": 3, "two": 1, "three": 1}),
    "one": (lambda: Article.filter(slug="one"), {"one": 4, "two": 0, "three": 0}),
    "none": (lambda: Article.filter(slug="none"), {"one": 3, "two": 0, "three": 0}),
    "by a relation": (lambda: Article.filter(author__name="Bob"), {"one": 3, "two": 1, "three": 1}),
    "by many": (lambda: Article.filter(tags__name__in=["news", "sport"]), {"one": 4, "two": 1, "three": 0}),
    "by its own table": (lambda: Article.filter(author__articles__slug="two"), {"one": 3, "two": 1, "three": 1}),
    "by alternatives": (lambda: Article.filter(Q(slug="one") | Q(tags__is_null=True)), {"one": 4, "two": 0, "three": 1}),
    "ordered": (lambda: Article.filter(views=0).order_by("id"), {"one": 3, "two": 1, "three": 1}),
}  # fmt: skip


async def test_an_update_changes_the_rows_of_the_query(db: SQLAlchemy) -> None:
    before = await views()
    async with db.scoped_session() as session:
        for name, (make, expected) in QUERIES.items():
            changed = await make().update(views=Article.views + 1)
            assert await views() == expected, name
            assert changed == sum(expected[slug] != before[slug] for slug in before), name
            await session.rollback()


async def test_a_delete_removes_the_rows_of_the_query(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        assert await Comment.filter(article__slug="one", hidden=True).delete() == 1
        assert await Comment.filter(article__comments__body="first").delete() == 1
        assert await Comment.filter(body="none").delete() == 0
        await session.commit()

    assert [one.body for one in await Comment.filter().all()] == ["third"]


async def test_a_row_whose_value_stays_the_same_counts_on_every_server(db: SQLAlchemy) -> None:
    assert await Article.filter(author_id=2).update(views=0, auto_commit=True) == 2


async def test_rows_with_a_key_of_two_columns(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        session.add_all([Page(issue=1, number=n, advertisements=[Advertisement(text="x")]) for n in (1, 2)])
        await session.flush()
        await Advertisement.filter(page__number=1, page__advertisements__text="x").update(text="y")
        assert await Advertisement.filter(text="y").count() == 1
        assert await Page.filter(advertisements__page__number=9).delete() == 0
        await session.rollback()


async def test_it_costs_one_statement(db: SQLAlchemy, wire: Listen) -> None:
    async with db.scoped_session():
        with wire() as commands:
            await Article.filter(author__name="Bob").update(views=1, auto_commit=True)

    assert kinds(commands) == ["UPDATE", "COMMIT"]


async def test_loaded_instances_follow(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        one, two = await Article.filter(slug__in=["one", "two"]).order_by("id").all()
        two.title = "pending"

        await Article.filter(title__in=["One", "pending"]).update(views=Article.views + 10)

        assert (one.views, two.views) == (13, 10)
        await Comment.filter(article_id=2).delete()
        assert await Comment.filter(article_id=2).count() == 0
        await session.rollback()


async def test_without_a_commit_nothing_is_kept(db: SQLAlchemy) -> None:
    with pytest.raises(LostWriteError, match=r"Article\.update would be lost"):
        await Article.filter().update(views=1)
    with pytest.raises(LostWriteError, match=r"Article\.delete would be lost"):
        await Article.filter().delete()
    assert sum((await views()).values()) == 3


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a limit": (lambda: Article.filter().limit(1).update(views=1), r"update\(\) of many rows takes no limit\(\)"),
    "an offset": (lambda: Article.filter().offset(1).delete(), r"delete\(\) of many rows takes no limit\(\)"),
    "no value": (lambda: Article.filter().update(), r"update\(\) needs at least one value"),
    "a hook": (lambda: Hooked.filter().update(name="x"), r"Hooked\.update: the model has an after-commit hook"),
    "a hook, deleted": (lambda: Hooked.filter().delete(), r"use sqlalchemy\.delete\(Hooked\)"),
    "a value of a changed column": (
        lambda: Article.filter().update(views=Article.author_id, author_id=1),
        r"update\(views=…\): the value reads 'author_id', which changes too",
    ),
}  # fmt: skip


async def test_changes_that_would_differ_between_servers_are_refused(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        for make, expected in REFUSED.values():
            with pytest.raises(BulkError, match=expected):
                await make()
        assert session.untouched


async def test_a_mistake_is_named(db: SQLAlchemy) -> None:
    with pytest.raises(UnknownLookupError, match="Article has no column 'viewz'"):
        await Article.filter().update(viewz=1, auto_commit=True)
    with pytest.raises(UnknownLookupError, match="Article has no column 'author'"):
        await Article.filter().update(author=await Author.filter(name="Ann").one(), auto_commit=True)


async def test_a_model_whose_changes_are_watched_is_refused_while_they_are(db: SQLAlchemy) -> None:
    async def watch(_table: str, _identity: int) -> None: ...

    assert await User.filter(name="nobody").update(status="blocked", auto_commit=True) == 0
    db.watch(watch)
    with pytest.raises(BulkError, match="User"):
        await User.filter(name="nobody").update(status="blocked", auto_commit=True)
