"""The Structs of the peers that encode with msgspec: Latchkey's answers, without an import of its models."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta


class RateLimit(msgspec.Struct, frozen=True):
    """A limit, stored and in an answer."""

    name: str
    limit: int
    window_s: int


class Quota(msgspec.Struct, frozen=True):
    """A quota, stored and in an answer."""

    limit: int
    per: str


class User(msgspec.Struct, frozen=True):
    """A user in an answer."""

    id: int
    email: str
    name: str
    status: str
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    external_id: str | None
    meta: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Key(msgspec.Struct, frozen=True):
    """A key in an answer."""

    access_key: str
    user_id: int
    name: str
    mode: str
    scopes: tuple[str, ...]
    allowed_networks: tuple[str, ...]
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    external_id: str | None
    meta: dict[str, Any]
    status: str
    secret_version: int
    old_secret_calls: int
    old_secret_last_used_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    updated_at: datetime
    # No key of the run has any of these.
    credits: None = None
    environment: str = "live"  # every key of the run is in the first one
    roles: tuple[str, ...] = ()
    role_scopes: tuple[str, ...] = ()


class Me(msgspec.Struct, frozen=True):
    """The calling user and key."""

    user: User
    key: Key


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a create."""

    email: Annotated[str, Meta(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]
    name: Annotated[str, Meta(min_length=1, max_length=200)]


PAGE = 20
"""Articles on a page."""


class Author(msgspec.Struct, frozen=True):
    """The author of an article."""

    id: int
    name: str
    email: str


class Tag(msgspec.Struct, frozen=True):
    """A tag of an article."""

    name: str


class Article(msgspec.Struct, frozen=True):
    """An article in an answer."""

    id: int
    slug: str
    title: str
    body: str
    views: int
    published_at: datetime
    author: Author
    tags: list[Tag]


class Articles(msgspec.Struct, frozen=True):
    """A page of articles."""

    items: list[Article]


class Window(msgspec.Struct, frozen=True):
    """A page: the articles before this id, newest first."""

    before: int
