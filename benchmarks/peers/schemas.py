"""The Pydantic models of the FastAPI peers' requests and answers."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class RateLimit(BaseModel):
    """A limit in an answer."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    limit: int
    window_s: int


class Quota(BaseModel):
    """A quota in an answer."""

    model_config = ConfigDict(from_attributes=True)

    limit: int
    per: str


class User(BaseModel):
    """A user in an answer."""

    model_config = ConfigDict(from_attributes=True)

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


class Key(BaseModel):
    """A key in an answer."""

    model_config = ConfigDict(from_attributes=True)

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


class Me(BaseModel):
    """The calling user and key."""

    user: User
    key: Key


class NewUser(BaseModel):
    """The body of a create."""

    model_config = ConfigDict(extra="forbid")

    email: str = Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")
    name: str = Field(min_length=1, max_length=200)


class Author(BaseModel):
    """The author of an article."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    email: str


class Tag(BaseModel):
    """A tag of an article."""

    model_config = ConfigDict(from_attributes=True)

    name: str


class Article(BaseModel):
    """An article in an answer."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    slug: str
    title: str
    body: str
    views: int
    published_at: datetime
    author: Author
    tags: list[Tag]


class Articles(BaseModel):
    """A page of articles."""

    items: list[Article]
