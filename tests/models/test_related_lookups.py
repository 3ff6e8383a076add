"""Lookups along relations, alternatives, offsets, and relations of relations that are loaded."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, inspect

from latchkey.models import into
from latchkey.models.errors import UnknownLookupError
from latchkey.models.lookups import Q
from latchkey.models.paging import page_of
from latchkey.models.query import Query
from latchkey.service.database import SQLAlchemy
from tests.models.newspaper import Article, Author, Comment, Tag

pytestmark = pytest.mark.usefixtures("articles")

Listen = Callable[[], AbstractContextManager[list[str]]]


class SlugRow(msgspec.Struct):
    slug: str


async def slugs(query: Query[Article]) -> str:
    """Return the slugs of a query as entities and as Structs, which must be the same."""
    entities = [one.slug for one in await query.all()]
    assert [one.slug for one in await query.into(SlugRow).all()] == entities
    assert await query.count() == len(entities)
    return " ".join(entities)


LOOKUPS: dict[str, tuple[Callable[[], Query[Article]], str]] = {
    "a column of a relation to one": (lambda: Article.filter(author__name="Bob"), "two three"),
    "with an operator": (lambda: Article.filter(author__name__like="A%"), "one"),
    "over two relations": (lambda: Article.filter(author__mentor__name="Ann"), "two three"),
    "over three, to a table that was met before": (
        lambda: Article.filter(author__mentor__articles__slug="one"),
        "two three",
    ),
    "back to its own table": (lambda: Article.filter(author__articles__slug="two"), "two three"),
    "of many, without a row twice": (lambda: Article.filter(tags__name__in=["news", "sport"]), "one two"),
    "of many that are not there": (lambda: Article.filter(tags__name="none"), ""),
    "a relation with a condition of its own": (lambda: Article.filter(visible__body="second"), ""),
    "two lookups of one related row": (
        lambda: Article.filter(comments__body="first", comments__hidden=True),
        "",
    ),
    "two lookups of two related rows": (
        lambda: Article.filter(comments__body="first").filter(comments__hidden=True),
        "one",
    ),
    "without a related row": (lambda: Article.filter(editor__is_null=True), "two three"),
    "with a related row": (lambda: Article.filter(comments__is_null=False), "one two"),
    "without one of many": (lambda: Article.filter(tags__is_null=True), "three"),
    "without one, in short": (lambda: Article.filter(editor=None), "two three"),
    "alternatives": (lambda: Article.filter(Q(slug="one") | Q(author__name="Bob", views=0)), "one two three"),
    "an alternative along a relation": (lambda: Article.filter(Q(tags__name="sport") | Q(slug="three")), "one three"),
    "both": (lambda: Article.filter(Q(views=0) & Q(subtitle="more")), "two"),
    "not": (lambda: Article.filter(~Q(tags__name="news")), "three"),
    "not either": (lambda: Article.filter(~(Q(slug="one") | Q(slug="two"))), "three"),
    "a condition and lookups": (lambda: Article.filter(Q(slug="one") | Q(slug="two"), views__gt=0), "one"),
    "on a query": (lambda: Article.filter(views=0).filter(Q(slug="one") | Q(slug="two")), "two"),
    "an expression of SQLAlchemy": (lambda: Article.filter(func.length(Article.slug) > 3), "three"),
    "skipped": (lambda: Article.filter().offset(1), "two three"),
    "skipped with a limit": (lambda: Article.filter().offset(1).limit(1), "two"),
    "none skipped": (lambda: Article.filter().offset(0), "one two three"),
    "all skipped": (lambda: Article.filter().offset(9), ""),
}  # fmt: skip


@pytest.mark.parametrize("on_writer", [False, True], ids=["reader", "writer"])
async def test_it_finds_the_rows(db: SQLAlchemy, on_writer: bool) -> None:
    async with db.scoped_session() as session:
        if on_writer:
            await session.connection()
        found = {name: await slugs(make().order_by("id")) for name, (make, _) in LOOKUPS.items()}

    assert found == {name: expected for name, (_, expected) in LOOKUPS.items()}


async def test_instances_are_values(db: SQLAlchemy) -> None:
    bob, news = await Author.filter(name="Bob").one(), await Tag.filter(name="news").one()

    assert await slugs(Article.filter(author=bob).order_by("id")) == "two three"
    assert await slugs(Article.filter(author__ne=bob).order_by("id")) == "one"
    assert await slugs(Article.filter(tags=news).order_by("id")) == "one two"
    assert await slugs(Article.filter(tags__ne=news).order_by("id")) == "three"
    assert (
        await slugs(Article.filter(Q(tags=news) | Q(editor=bob), author__mentor=None).order_by("id")) == "one"
    )


async def test_a_shape_is_compiled_once_whatever_the_aliases(db: SQLAlchemy) -> None:
    def query(name: str) -> Query[Article]:
        return Article.filter(Q(author__mentor__name=name) | Q(tags__name=name)).offset(len(name))

    await query("Ann").into(SlugRow).all()
    kept = len(into.shapes._kept)
    await query("nobody").into(SlugRow).all()

    assert len(into.shapes._kept) == kept


ORDERS = {
    ("author__name", "id"): "one two three",
    ("-author__name", "-id"): "three two one",
    ("author__mentor__name", "-id"): "one three two",
    ("-author__mentor__name", "id"): "two three one",
    ("editor__name", "-slug"): "two three one",
    ("-editor__publisher__name", "author__desk__place", "id"): "one two three",
}


@pytest.mark.parametrize("names", ORDERS, ids=" ".join)
async def test_related_rows_sort(db: SQLAlchemy, names: tuple[str, ...]) -> None:
    query = Article.filter().order_by(*names)

    assert await slugs(query) == ORDERS[names]
    assert await slugs(query.limit(2)) == " ".join(ORDERS[names].split()[:2])
    assert await slugs(query.offset(1)) == " ".join(ORDERS[names].split()[1:])
    assert (await query.count(), await query.exists()) == (3, True)
    loaded = await query.load("author.publisher", "editor", "tags").limit(2).all()
    assert " ".join(one.slug for one in loaded) == " ".join(ORDERS[names].split()[:2])


async def test_related_rows_sort_a_locked_and_a_filtered_query(db: SQLAlchemy) -> None:
    query = Article.filter(author__name="Bob", tags__is_null=False).order_by("-author__name")
    async with db.scoped_session() as session:
        assert [one.slug for one in await query.for_update().all()] == ["two"]
        await session.rollback()


async def test_a_list_is_not_paged_by_a_related_row(db: SQLAlchemy) -> None:
    with pytest.raises(
        TypeError, match="'author__name': a list cannot be paged by a column of a related row"
    ):
        await page_of(Article.filter().into(SlugRow), order_by="-author__name", after=None, limit=1)


async def test_relations_of_relations_are_loaded(db: SQLAlchemy, wire: Listen) -> None:
    async with db.scoped_session():
        with wire() as commands:
            query = Article.filter(slug="one").load("author.publisher", "comments.author.mentor", "tags")
            article = await query.one()

    assert len(commands) == 3
    assert article.author.publisher.name == "The Publisher"
    assert [one.author.name for one in article.comments] == ["Ann", "Bob"]
    assert article.comments[1].author.mentor is article.author
    assert "articles" in inspect(article.author).unloaded


async def test_a_limit_counts_rows_and_not_related_rows(db: SQLAlchemy) -> None:
    query = Comment.filter(article__tags__is_null=False).order_by("-id").limit(2).load("article.tags")

    assert [len(one.article.tags) for one in await query.all()] == [1, 2]


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: Article.filter().order_by("tags__name"), "'tags__name': tags is a relation to many"),
    (lambda: Article.filter().order_by("author__nmae"), "Author has no column 'nmae'; it has bio, id, "),
    (lambda: Article.filter().order_by("author"), "Article has no column 'author'"),
    (lambda: Article.filter(author__nmae="x"), "Author has no column 'nmae'; it has bio, id, "),
    (lambda: Article.filter(auhtor__name="x"), "Article has no column 'auhtor'; it has "),
    (lambda: Article.filter(auhtor="x"), "; and the relations author, comments, editor, tags, visible"),
    (lambda: Article.filter(author__name__is="x"), "there is no operator 'is'; there are eq, "),
    (lambda: Article.filter(author=3), "'author': the value must be an instance of Author, not int"),
    (lambda: Article.filter(tags__in=[1]), "'tags__in': a relation has the operators eq, ne and is_null"),
    (lambda: Article.filter(Q(titel="x") | Q(slug="x")), "Article has no column 'titel'"),
    (lambda: Article.filter().load("author.hosue"), "Author has no relation 'hosue'; it has articles, desk, "),
    (Q, r"Q\(\) needs at least one lookup"),
    (lambda: Q(id=1) or Q(id=2), "a Q has no truth value"),
]  # fmt: skip


async def test_a_mistake_is_named(db: SQLAlchemy) -> None:
    for make, expected in MISTAKES:
        with pytest.raises((UnknownLookupError, TypeError), match=expected):
            make()


@pytest.mark.parametrize("verb", ["limit", "offset"])
async def test_a_negative_number_of_rows_is_refused_on_every_server(verb: str) -> None:
    with pytest.raises(ValueError, match=rf"{verb}\(-1\): the number of rows cannot be negative"):
        getattr(Article.filter(), verb)(-1)
