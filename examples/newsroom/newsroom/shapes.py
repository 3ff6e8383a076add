"""The bodies, queries and answers of the endpoints."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from latchkey import PageQuery

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Title = Annotated[str, Meta(max_length=120, pattern=r"[A-Za-z0-9]")]  # the address needs a letter or digit
Summary = Annotated[str, Meta(max_length=300)]
Text = Annotated[str, Meta(min_length=1, max_length=15_000)]
TagName = Annotated[str, Meta(max_length=30, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$(?![\s\S])")]


class NewArticle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    title: Title
    summary: Summary = ""
    body: Text
    tags: tuple[TagName, ...] = ()


class ArticleChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A change of an article; absent fields stay as they are."""

    title: Title | UnsetType = UNSET
    summary: Summary | UnsetType = UNSET
    body: Text | UnsetType = UNSET


class NewComment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: Annotated[str, Meta(min_length=1, max_length=2000)]


class NewMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    email: Annotated[str, Meta(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    role: Literal["author", "reader"]


class ArticleQuery(PageQuery, frozen=True, kw_only=True):
    """The query of `GET /v1/articles`: the filters, of which all must match."""

    author: Id | None = None
    tag: TagName | None = None
    text: Annotated[str, Meta(min_length=3, max_length=50, pattern=r"^[^%_\\]+$(?![\s\S])")] | None = None


class Author(msgspec.Struct):
    id: int
    name: str


class Tag(msgspec.Struct):
    name: str


class Entry(msgspec.Struct, kw_only=True):
    """An article in a list; `favourited` is false for an anonymous reader."""

    id: int
    slug: str
    title: str
    summary: str
    favourites: int
    created_at: datetime
    updated_at: datetime
    author: Author
    tags: list[Tag]
    favourited: bool = False


class FullArticle(Entry, kw_only=True):
    body: str


class Comment(msgspec.Struct):
    id: int
    body: str
    created_at: datetime
    author: Author


class Profile(Author):
    """An author; `following` is false for an anonymous reader."""

    followers: int
    following: bool


class TagCount(Tag):
    articles: int


class Member(msgspec.Struct):
    """A member with the secret of a key, which is null in the replay of the call."""

    one_time = frozenset({"secret"})

    id: int
    access_key: str
    secret: str | None
