"""The shape of a query: queries that differ in their values alone share one statement, and no others do."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, null

from latchkey.models import into, steps
from latchkey.models.lookups import Q
from latchkey.models.paging import page_of
from latchkey.models.query import Query
from latchkey.models.recent import Recent
from latchkey.service.database import SQLAlchemy
from tests.models.newspaper import Article, Author, Comment, Everything, Kind, Tag

pytestmark = pytest.mark.usefixtures("articles")


class Row(msgspec.Struct):
    id: int


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Recent[Any]:
    """Empty caches."""
    found: Recent[Any] = Recent(100)
    monkeypatch.setattr(into, "shapes", found)
    monkeypatch.setattr(steps, "checked", Recent(100))
    return found


VALUES: dict[str, list[Any]] = {
    "id": [1, 3, None, 9, "2", True, Decimal(2), null(), Article.views + 1],
    "id__ne": [1, None, 2],
    "id__in": [[], [1], (1, 2, 3), {2}, range(9), [None, 1], [1, None], ["1", "2"], [func.abs(-1), 2], [1]],
    "id__not_in": [[], [1], [None, 1], [2, 3]],
    "id__is_null": [True, False, 0, 1],
    "subtitle": ["more", None, "x"],
    "subtitle__is_null": [False, True],
    "title__like": ["T%", "One", "%"],
    "title__gte": ["Three", "", "Two"],
    "author__name": ["Ann", "Bob", None],
    "author__name__in": [["Ann", "Bob"], [], ["Bob"]],
    "author__mentor": [None],
    "editor": [None],
    "editor__is_null": [True, False],
    "tags__name": ["news", "sport"],
    "tags__name__in": [["news", "sport"], ["sport"]],
    "comments__hidden": [True, False],
}


@pytest.mark.parametrize("lookup", VALUES)
async def test_a_value_finds_what_it_finds_with_entities(db: SQLAlchemy, lookup: str) -> None:
    for _ in range(2):
        for value in VALUES[lookup]:
            query = Article.filter(**{lookup: value}).order_by("id")
            assert await read(query) == [one.id for one in await query.all()], value


MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
COLUMNS: dict[str, list[Any]] = {
    "moment": [MOMENT, MOMENT + timedelta(days=1)],
    "moment__in": [[MOMENT], [MOMENT + timedelta(days=1), MOMENT]],
    "day__lte": [date(2026, 1, 2), date(2025, 1, 1)],
    "double__gt": [0.05, 1, Decimal("0.05")],
    "price": [Decimal("12.34"), 12, 12.34],
    "kind": [Kind.NEWS, Kind.OPINION],
    "kind__in": [[Kind.NEWS, Kind.OPINION]],
    "word": ["news", "opinion"],
    "flag": [True, False, 1],
    "words": [("a", "b"), ("a",)],
    "key": ["Schlüssel", "schlüssel"],
    "key__in": [["Schlüssel"], ["x", "Schlüssel"]],
}


async def test_a_value_has_the_type_of_its_column(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        session.add(
            Everything(
                id=1, moment=MOMENT, day=MOMENT.date(), double=0.1, price=Decimal("12.34"), kind=Kind.NEWS,
                word="news", flag=True, words=("a", "b"), key="Schlüssel",
            )
        )  # fmt: skip
        await session.commit()

    for lookup, values in COLUMNS.items():
        found = [await read(Everything.filter(**{lookup: value})) for value in values]
        entities = [[one.id for one in await Everything.filter(**{lookup: value}).all()] for value in values]
        assert found == entities, lookup
        assert [1] in found, lookup


COMBINED: list[Callable[[Any], Query[Article]]] = [
    lambda n: Article.filter(Q(id=n) | Q(views__gte=n)),
    lambda n: Article.filter(Q(id=n) & Q(views__gte=0)),
    lambda n: Article.filter(~Q(id=n), ~(Q(id=n + 1) | Q(author__name="nobody"))),
    lambda n: Article.filter(Q(tags__name="news"), id__lte=n).filter(views__gte=0),
    lambda n: Article.filter(author__name="Bob", author__articles__id=n),
    lambda n: Article.filter().order_by("-title", "id").limit(n),
    lambda n: Article.filter().order_by("id").offset(n),
    lambda n: Article.filter().order_by("id").limit(2).offset(n - 1),
    lambda n: Article.filter(Article.id >= n),
    lambda n: Article.filter(Article.id >= n, id__lte=2),
]


async def test_combinations_find_what_they_find_with_entities(db: SQLAlchemy, kept: Recent[Any]) -> None:
    for number in (1, 2, 3, 1):
        for make in COMBINED:
            assert sorted(await read(make(number))) == sorted([one.id for one in await make(number).all()])
    assert len(kept) == len(COMBINED)


async def test_instances_are_values(db: SQLAlchemy) -> None:
    ann, bob = await Author.filter().order_by("id").all()
    news = await Tag.filter(name="news").one()

    for author, ids in ((ann, [1]), (bob, [2, 3]), (None, []), (ann, [1])):
        assert await read(Article.filter(author=author)) == ids
        assert await read(Article.filter(~Q(author__ne=author))) == ids
    assert await read(Article.filter(Q(tags=news) | Q(author__pupils=bob)).order_by("id")) == [1, 2]


async def test_a_known_shape_is_not_built(db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    def query(number: int) -> Query[Article]:
        return (
            Article.filter(Q(title="x") | Q(id__lte=number), author__name__in=["Bob"])
            .order_by("-id")
            .limit(number)
        )

    async def page(after: bytes | None) -> tuple[list[Any], bytes | None]:
        return await page_of(Comment.filter().into(Row), order_by="-body", after=after, limit=1)

    assert await read(query(3)) == [3, 2]
    _, second = await page(None)
    _, third = await page(second)
    for module in (steps, into):
        monkeypatch.setattr(module, "statement_of", refuse)
    monkeypatch.setattr(steps, "select", refuse)
    monkeypatch.setattr("latchkey.models.lookups.conditions", refuse)

    assert await read(query(2)) == [2]
    assert (await page(None))[1] == second
    assert await page(third) == ([Row(1)], None)


async def test_an_iterator_is_read_once(db: SQLAlchemy) -> None:
    query = Article.filter(id__in=iter([1, 2]))

    assert await read(query.order_by("id")) == [1, 2]
    assert await query.count() == 2


async def test_a_list_that_changes_later_changes_no_query(db: SQLAlchemy) -> None:
    ids = [1]
    query = Article.filter(id__in=ids)
    ids.append(2)

    assert await read(query) == [1]


async def read(query: Query[Any]) -> list[int]:
    return [one.id for one in await query.into(Row).all()]


def refuse(*_arguments: Any, **_options: Any) -> None:
    raise AssertionError("it was built again")
