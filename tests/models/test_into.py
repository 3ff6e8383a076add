"""`Model.filter(…).into(Struct)`: the selected columns, the results, and the cost."""

import asyncio
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey.models import into
from latchkey.models.errors import StructError
from latchkey.models.limit import Quota
from latchkey.models.recent import Recent
from latchkey.service.database import SQLAlchemy
from tests.conftest import on_mariadb
from tests.models.newspaper import (
    Advertisement,
    Article,
    Everything,
    Kind,
    Page,
)

Listen = Callable[[], AbstractContextManager[list[str]]]
T = TypeVar("T")


class PublisherRow(msgspec.Struct):
    name: str


class AuthorRow(msgspec.Struct):
    name: str
    bio: str | None


class CommentRow(msgspec.Struct):
    id: int
    body: str


class TagRow(msgspec.Struct):
    name: str


class ArticleRow(msgspec.Struct, kw_only=True, rename="camel", frozen=True):
    slug: str
    author: AuthorRow
    comment_count: int
    title: str
    editor: AuthorRow | None = None
    comments: list[CommentRow]
    tags: tuple[TagRow, ...]
    is_new: bool = False


class TitleRow(msgspec.Struct):
    title: str
    id: int


ANN, BOB = AuthorRow("Ann", None), AuthorRow("Bob", "writes")
NEWS, SPORT = TagRow("news"), TagRow("sport")
ONE = ArticleRow(
    slug="one",
    author=ANN,
    comment_count=2,
    title="One",
    editor=BOB,
    comments=[CommentRow(2, "second"), CommentRow(1, "first")],
    tags=(SPORT, NEWS),
)
TWO = ArticleRow(
    slug="two", author=BOB, comment_count=1, title="Two", comments=[CommentRow(3, "third")], tags=(NEWS,)
)
THREE = ArticleRow(slug="three", author=BOB, comment_count=0, title="Three", comments=[], tags=())


@pytest.mark.usefixtures("articles")
async def test_a_row_becomes_a_struct_with_all_that_it_names(db: SQLAlchemy) -> None:
    assert await Article.filter(slug="one").into(ArticleRow).one() == ONE
    assert await Article.filter(slug="three").into(ArticleRow).first() == THREE
    assert await Article.filter(slug="four").into(ArticleRow).first() is None
    assert await Article.filter().order_by("id").into(ArticleRow).all() == [ONE, TWO, THREE]
    assert await Article.filter().order_by("-id").limit(2).into(ArticleRow).all() == [THREE, TWO]
    with pytest.raises(NoResultFound):
        await Article.filter(slug="four").into(ArticleRow).one()
    with pytest.raises(MultipleResultsFound):
        await Article.filter(slug__in=["one", "two"]).into(ArticleRow).one()


@pytest.mark.usefixtures("articles")
async def test_it_costs_a_statement_and_one_for_each_relation_to_many(db: SQLAlchemy, wire: Listen) -> None:
    query = Article.filter().order_by("id")
    await query.into(ArticleRow).all()
    async with db.scoped_session():
        with wire() as commands:
            assert len(await query.into(ArticleRow).all()) == 3
            found = list(commands)
            await query.into(TitleRow).all()
            await Article.filter(id=9).into(ArticleRow).all()

    assert len(found) == 3
    assert len(commands) == 5  # and none for the relations of no rows
    assert "subtitle" not in found[0]
    assert "views" not in found[0]
    assert db.checked_out() == 0


@pytest.mark.usefixtures("articles")
async def test_no_entity_is_made(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        await Article.filter().into(ArticleRow).all()
        assert session.untouched


@pytest.mark.usefixtures("articles")
@pytest.mark.parametrize("where", ["reader", "writer", "a session of SQLAlchemy's own"])
async def test_it_finds_the_same_on_every_way(db: SQLAlchemy, where: str) -> None:
    query = Article.filter(slug__in=["one", "two", "x"], views__gte=0).order_by("-id").limit(5)
    if where == "reader":
        found = await query.into(ArticleRow).all()
    elif where == "writer":
        async with db.scoped_session() as session:
            await session.connection()
            found = await query.into(ArticleRow).all()
            await session.rollback()
    else:
        async with AsyncSession(db.reader) as session:
            found = (
                await Article.filter(session=session, slug__in=["one", "two"])
                .order_by("-id")
                .into(ArticleRow)
                .all()
            )

    assert found == [TWO, ONE]


@pytest.mark.usefixtures("articles")
async def test_in_a_transaction_it_sees_what_was_written(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        article = await Article.filter(slug="one").one()
        await article.update(title="Changed")
        assert (await Article.filter(slug="one").into(TitleRow).one()).title == "Changed"
        article.title = "Pending"
        session.autoflush = True
        assert (await Article.filter(slug="one").into(TitleRow).one()).title == "Pending"
        await session.rollback()
    assert (await Article.filter(slug="one").into(TitleRow).one()).title == "One"


@pytest.mark.usefixtures("articles")
async def test_it_can_lock(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        article = await Article.filter(slug="one").one()
        article.title = "Pending"
        found = await Article.filter(slug="one").for_update().into(ArticleRow).one()
        assert (found.title, session.on_writer) == ("Pending", True)
        await session.rollback()


@pytest.mark.usefixtures("articles")
async def test_a_shape_is_compiled_once_whatever_its_values(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: Recent[Any] = Recent(most=3)
    monkeypatch.setattr(into, "shapes", kept)
    for slug, limit in (("one", 1), ("two", 2), ("three", 3)):
        (found,) = (
            await Article.filter(slug=slug, id__in=range(1, limit + 9)).limit(limit).into(TitleRow).all()
        )
        assert found.title == slug.title()
    assert len(kept._kept) == 1

    first = next(iter(kept._kept.values()))
    for order in ("id", "-id", "slug", "-slug", "title"):
        await Article.filter().order_by(order).into(TitleRow).all()
    assert len(kept._kept) == 3
    assert first not in kept._kept.values()


@pytest.mark.usefixtures("articles")
@pytest.mark.parametrize(
    ("lookups", "found"),
    [
        pytest.param({"id__in": []}, [], id="in nothing"),
        pytest.param({"id__in": (1, 3)}, [1, 3], id="in two"),
        pytest.param({"id__in": {1, 2, 3, 4, 5}}, [1, 2, 3], id="in five"),
        pytest.param({"id__not_in": []}, [1, 2, 3], id="not in nothing"),
        pytest.param({"id__not_in": [1, 2, 9]}, [3], id="not in three"),
        pytest.param({"slug__in": ["one", "two"], "id__in": [2, 3]}, [2], id="two lists"),
        pytest.param({"subtitle": None}, [1, 3], id="null"),
        pytest.param({"subtitle__is_null": False}, [2], id="not null"),
        pytest.param({"title__like": "T%"}, [2, 3], id="like"),
        pytest.param({"views": Article.id + 2}, [1], id="an expression"),
        pytest.param({"views__gt": Article.id + 1}, [1], id="an expression with another value"),
    ],
)
async def test_every_lookup_works(db: SQLAlchemy, lookups: dict[str, Any], found: list[int]) -> None:
    for _ in range(2):
        rows = await Article.filter(**lookups).order_by("id").into(TitleRow).all()
        assert [row.id for row in rows] == found
    assert [one.id for one in await Article.filter(**lookups).order_by("id").all()] == found


class Numbered(msgspec.Struct, Generic[T]):
    id: int
    number: T


class Deep(msgspec.Struct):
    """Relations inside relations, to one and to many, and to the model itself."""

    class Comment(msgspec.Struct):
        class Author(msgspec.Struct):
            class Mentor(msgspec.Struct):
                name: str
                publisher: PublisherRow

            name: str
            mentor: Mentor | None

        body: str
        author: Author

    class Author(msgspec.Struct):
        class Desk(msgspec.Struct):
            place: str

        class Pupil(msgspec.Struct):
            name: str
            articles: list[TitleRow]

        desk: Desk | None
        publisher: PublisherRow
        pupils: list[Pupil]

    author: Author
    visible: list[Comment]
    heading: str
    is_read: bool


@pytest.mark.usefixtures("articles")
async def test_relations_are_read_at_any_depth(db: SQLAlchemy, wire: Listen) -> None:
    found = await Article.filter().order_by("id").into(Deep).all()
    publisher = PublisherRow("The Publisher")
    mentor = Deep.Comment.Author.Mentor("Ann", publisher)
    bobs = [TitleRow("Two", 2), TitleRow("Three", 3)]
    ann = Deep.Author(Deep.Author.Desk("window"), publisher, [Deep.Author.Pupil("Bob", bobs)])

    assert found == [
        Deep(ann, [Deep.Comment("first", Deep.Comment.Author("Bob", mentor))], "One", True),
        Deep(
            Deep.Author(None, publisher, []),
            [Deep.Comment("third", Deep.Comment.Author("Ann", None))],
            "Two",
            False,
        ),
        Deep(Deep.Author(None, publisher, []), [], "Three", False),
    ]
    with wire() as commands:
        await Article.filter().order_by("id").into(Deep).all()
    assert len([one for one in commands if one.startswith("SELECT")]) == 4


class PageRow(msgspec.Struct):
    class Text(msgspec.Struct):
        text: str

    advertisements: list[Text]
    number: int


class TextRow(msgspec.Struct):
    class Page(msgspec.Struct):
        number: int

    id: int
    page: Page | None


@pytest.mark.usefixtures("articles")
async def test_keys_of_two_columns_are_followed(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        session.add_all([Page(issue=1, number=1), Page(issue=1, number=2), Page(issue=2, number=1)])
        await session.flush()
        for number, place in enumerate([(1, 2), (2, 1), (1, 2), (None, 2)], start=1):
            session.add(Advertisement(id=number, text=f"t{number}", issue=place[0], number=place[1]))
        await session.commit()

    pages = await Page.filter().order_by("issue", "number").into(PageRow).all()
    texts = await Advertisement.filter().order_by("id").into(TextRow).all()

    assert pages == [
        PageRow([], 1),
        PageRow([PageRow.Text("t1"), PageRow.Text("t3")], 2),
        PageRow([PageRow.Text("t2")], 1),
    ]
    assert [one.page and one.page.number for one in texts] == [2, 1, 2, None]


class QuotaRow(msgspec.Struct):
    limit: int


class EverythingRow(msgspec.Struct):
    moment: datetime | None
    day: date | None
    single: float | None
    double: float | None
    price: Decimal | None
    kind: Kind | None
    word: Literal["news", "opinion"] | None
    flag: bool | None
    document: dict[str, list[int]] | None
    quota: Quota | None
    words: tuple[str, ...] | None
    key: str | None
    renamed: int | None


class OtherRow(msgspec.Struct):
    """The same columns with other types, to which their values can be converted."""

    word: Kind | None
    price: float | None
    renamed: float | None
    quota: QuotaRow | None
    words: list[str] | None
    id: Annotated[int, msgspec.Meta(ge=1)]
    moment: Any
    more: list[int] = []


VALUES: dict[str, Any] = {
    "moment": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "day": date(2026, 1, 2),
    "single": 0.1,
    "double": 0.1,
    "price": Decimal("12.340"),
    "kind": Kind.NEWS,
    "word": "news",
    "flag": True,
    "document": {"a": [1, 2]},
    "quota": Quota(limit=5, per="day"),
    "words": ("a", "b"),
    "key": "Schlüssel",
    "renamed": 7,
}


@pytest.mark.usefixtures("articles")
@pytest.mark.parametrize("on_writer", [False, True], ids=["reader", "writer"])
async def test_values_are_those_of_an_entity(db: SQLAlchemy, on_writer: bool) -> None:
    async with db.scoped_session() as session:
        session.add_all([Everything(id=1, **VALUES), Everything(id=2)])
        await session.commit()

    async with db.scoped_session() as session:
        if on_writer:
            await session.connection()
        full, empty = await Everything.filter().order_by("id").into(EverythingRow).all()
        other, none = await Everything.filter().order_by("id").into(OtherRow).all()
        entity = await Everything.filter(id=1).one()
        kinds = {name: type(getattr(entity, name)) for name in VALUES}
        await session.rollback()

    assert full == EverythingRow(**VALUES)
    assert {name: type(getattr(full, name)) for name in VALUES} == kinds
    assert empty == EverythingRow(**dict.fromkeys(VALUES))
    assert other == OtherRow(Kind.NEWS, 12.34, 7.0, QuotaRow(5), ["a", "b"], 1, VALUES["moment"])
    assert none == OtherRow(None, None, None, None, None, 2, None)
    assert other.more is not none.more


@pytest.mark.usefixtures("articles")
async def test_a_generic_struct_has_fields_of_the_types_it_is_given(db: SQLAlchemy) -> None:
    class Seen(Numbered[T], Generic[T]):
        """A subclass."""

    class WithViews(msgspec.Struct, Generic[T]):
        id: int
        views: T

    assert await Article.filter(id=1).into(WithViews[int]).one() == WithViews[int](1, 3)
    with pytest.raises(StructError, match=r"WithViews\.views: it is str, and the column is Integer"):
        Article.filter(id=1).into(WithViews[str])


def struct(name: str, *fields: Any) -> Any:
    return msgspec.defstruct(name, fields)


class Round(msgspec.Struct):
    articles: list["Around"]


class Around(msgspec.Struct):
    author: Round


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        pytest.param(struct("Row", ("nmae", str)), r"Row\.nmae: Article has no column or relation of this name; it has author, ", id="a typo"),
        pytest.param(struct("Row", ("title", int)), r"Row\.title: it is int, and the column is String, whose values are str", id="another type"),
        pytest.param(struct("Row", ("views", str)), r"Row\.views: it is str, and the column is Integer", id="text of a number"),
        pytest.param(struct("Row", ("views", str | None)), r"Row\.views: it is str \| None", id="or none"),
        pytest.param(struct("Row", ("author", str)), r"Row\.author: it is a relation, so its type must be a Struct, not str", id="one, as text"),
        pytest.param(struct("Row", ("author", list[AuthorRow])), r"Row\.author: it is a relation, so its type must be a Struct, not list", id="one, as many"),
        pytest.param(struct("Row", ("tags", list[str])), r"Row\.tags: it is a relation, so its type must be a Struct, not str", id="many, as texts"),
        pytest.param(struct("Row", ("tags", TagRow)), r"Row\.tags: it is a relation to many, so its type must be a list or a tuple of Structs, not TagRow", id="many, as one"),
        pytest.param(struct("Row", ("tags", tuple[TagRow, TagRow])), r"Row\.tags: it is a relation to many", id="many, as two"),
        pytest.param(struct("Row", ("author", struct("Inner", ("nmae", str)))), r"Inner\.nmae: Author has no", id="inside of one"),
        pytest.param(struct("Row", ("tags", types.GenericAlias(list, struct("Inner", ("id", str))))), r"Inner\.id: it is str", id="inside of many"),
        pytest.param(Around, r"Round\.articles: Around contains itself", id="without end"),
        pytest.param(dict, "into=.* is no msgspec.Struct", id="no Struct"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_read_are_refused_by_name_before_anything_is_sent(
    wanted: Any, says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        Article.filter().into(wanted)


def test_relations_are_named_in_the_struct_and_not_in_load() -> None:
    with pytest.raises(
        TypeError, match="ArticleRow determines what is read: declare the relations of `load` as its fields"
    ):
        Article.filter().load("author").into(ArticleRow)


@pytest.mark.usefixtures("articles")
@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        pytest.param(struct("Row", ("subtitle", str)), r"Row\.subtitle: the value is NULL", id="null"),
        pytest.param(struct("Row", ("title", Kind)), r"Row\.title: Invalid enum value 'One'", id="enum"),
        pytest.param(
            struct("Row", ("editor", AuthorRow)), r"Row\.editor: there is no related row", id="relation"
        ),
    ],
)
async def test_a_value_that_does_not_fit_is_an_error_that_names_the_field(
    db: SQLAlchemy, wanted: Any, says: str
) -> None:
    with pytest.raises(StructError, match=says):
        await Article.filter().order_by("id").into(wanted).all()


@on_mariadb
@pytest.mark.usefixtures("articles")
async def test_a_dead_pooled_connection_is_replaced(db: SQLAlchemy) -> None:
    async with db.reader.connect() as one, db.reader.connect() as two:
        ids = [(await each.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one() for each in (one, two)]
    async with db.engine.connect() as other:
        for dead in ids:
            await other.execute(text(f"KILL {dead}"))

    assert await Article.filter(slug="one").into(ArticleRow).one() == ONE


@pytest.mark.usefixtures("articles")
async def test_children_of_a_task_read_for_themselves(db: SQLAlchemy) -> None:
    async with db.scoped_session(), asyncio.TaskGroup() as group:
        tasks = [group.create_task(Article.filter(id=1).into(ArticleRow).one()) for _ in range(4)]
    assert [task.result() for task in tasks] == [ONE] * 4
