"""The code of a team on Latchkey: articles with their author and tags, read in each of the three ways.

Started by the peer `latchkey`, with `LATCHKEY_APP`.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import TypeVar

import msgspec
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Mapped, relationship
from starlette.applications import Starlette

from benchmarks.peers import structs
from benchmarks.peers.tables import ArticleColumns, TagColumns
from latchkey import Base, Operation, Problem, User, create_app, prepared, route

F = TypeVar("F")


class Article(ArticleColumns, Base):
    """An article, its author and its tags."""

    author: Mapped[User] = relationship(lazy="raise")
    tags: Mapped[list["Tag"]] = relationship(lazy="raise", order_by="Tag.id")


class Tag(TagColumns, Base):
    """A tag of an article."""


# ---------------------------------------------------------------------- by into


async def read_into(slug: str) -> structs.Article:
    """Read one."""
    return found_or_404(await Article.filter(slug=slug).into(structs.Article).first())


async def list_into(query: structs.Window) -> structs.Articles:
    """Read a page."""
    page = Article.filter(id__lt=query.before).order_by("-id").limit(structs.PAGE)
    return structs.Articles(await page.into(structs.Article).all())


# ---------------------------------------------------------------------- by prepared


class ArticleRow(msgspec.Struct):
    """An article and its author in one row."""

    id: int
    slug: str
    title: str
    body: str
    views: int
    published_at: datetime
    author_id: int
    author_name: str
    author_email: str


class TagRow(msgspec.Struct):
    """A tag, and the id of its article."""

    article_id: int
    name: str


_ROWS = select(
    *(Article.id, Article.slug, Article.title, Article.body, Article.views, Article.published_at),
    *(Article.author_id, User.name.label("author_name"), User.email.label("author_email")),
).join(Article.author)
BY_SLUG = prepared(_ROWS.where(Article.slug == bindparam("slug")), into=ArticleRow)
BEFORE = prepared(
    _ROWS.where(Article.id < bindparam("before")).order_by(Article.id.desc()).limit(structs.PAGE),
    into=ArticleRow,
)
TAGS = prepared(
    select(Tag.article_id, Tag.name)
    .where(Tag.article_id.in_(bindparam("articles", expanding=True)))
    .order_by(Tag.id),
    into=TagRow,
)


async def with_tags(rows: list[ArticleRow]) -> list[structs.Article]:
    """Read the tags of some articles, and combine both."""
    tags: defaultdict[int, list[structs.Tag]] = defaultdict(list)
    for tag in await TAGS.all(articles=[row.id for row in rows]):
        tags[tag.article_id].append(structs.Tag(tag.name))
    return [
        structs.Article(
            id=row.id,
            slug=row.slug,
            title=row.title,
            body=row.body,
            views=row.views,
            published_at=row.published_at,
            author=structs.Author(row.author_id, row.author_name, row.author_email),
            tags=tags[row.id],
        )
        for row in rows
    ]


async def read_prepared(slug: str) -> structs.Article:
    """Read one."""
    row = found_or_404(await BY_SLUG.first(slug=slug))
    return (await with_tags([row]))[0]


async def list_prepared(query: structs.Window) -> structs.Articles:
    """Read a page."""
    return structs.Articles(await with_tags(await BEFORE.all(before=query.before)))


# ---------------------------------------------------------------------- by entities


async def read_entities(slug: str) -> Article:
    """Read one."""
    return found_or_404(await Article.filter(slug=slug).load("author", "tags").first())


async def list_entities(query: structs.Window) -> dict[str, list[Article]]:
    """Read a page."""
    page = Article.filter(id__lt=query.before).order_by("-id").limit(structs.PAGE)
    return {"items": await page.load("author", "tags").all()}


def found_or_404(found: F | None) -> F:
    """Return the row, or raise a 404."""
    if found is None:
        raise Problem("not_found", "There is no article with this slug.")
    return found


def operations() -> Iterator[Operation]:
    """Return two routes for each read: one for calls with a key, and one public."""
    ways = {
        "into": (read_into, list_into),
        "prepared": (read_prepared, list_prepared),
        "entities": (read_entities, list_entities),
    }
    for way, (read, page) in ways.items():
        for public in (False, True):
            place = f"/{way}/public/articles" if public else f"/{way}/articles"
            one = place + "/{slug}"
            yield route("GET", one, read, answers=structs.Article, public=public, any_key=not public)
            yield route("GET", place, page, answers=structs.Articles, public=public, any_key=not public)


def create_application() -> Starlette:
    """Build the application."""
    return create_app(routes=list(operations()))
