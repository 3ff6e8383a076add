"""The models of the peers that use SQLAlchemy, for the tables of Latchkey's migrations."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.peers.structs import Quota, RateLimit
from latchkey.models.types import BigId, Binary, BinaryText, Json, UtcDateTime, Words, utc_now

META = Json(dict[str, Any], empty={})
LIMITS = Json(tuple[RateLimit, ...], empty=())


class UserColumns:
    """An owner of keys."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    email: Mapped[str] = mapped_column(String(254))
    email_key: Mapped[str] = mapped_column(BinaryText(1524), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16), default="active")
    limits: Mapped[tuple[RateLimit, ...]] = mapped_column(LIMITS, nullable=True, default=())
    quota: Mapped[Quota | None] = mapped_column(Json(Quota))
    external_id: Mapped[str | None] = mapped_column(BinaryText(255))
    meta: Mapped[dict[str, Any]] = mapped_column(META, nullable=True, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())


class KeyColumns:
    """A key."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    access_key: Mapped[str] = mapped_column(BinaryText(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(200))
    mode: Mapped[str] = mapped_column(String(16))
    scopes: Mapped[tuple[str, ...]] = mapped_column(Words)
    allowed_networks: Mapped[tuple[str, ...]] = mapped_column(Words)
    limits: Mapped[tuple[RateLimit, ...]] = mapped_column(LIMITS, nullable=True, default=())
    quota: Mapped[Quota | None] = mapped_column(Json(Quota))
    has_credits: Mapped[bool]
    external_id: Mapped[str | None] = mapped_column(BinaryText(255))
    meta: Mapped[dict[str, Any]] = mapped_column(META, nullable=True, default=dict)
    status: Mapped[str] = mapped_column(String(16))
    secret_version: Mapped[int]
    old_secret_calls: Mapped[int]
    old_secret_last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SecretColumns:
    """A version of a key's secret."""

    __tablename__ = "key_secrets"

    api_key_id: Mapped[int] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    secret_sha256: Mapped[bytes] = mapped_column(Binary(32), unique=True)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ArticleColumns:
    """An article, which a user wrote."""

    __tablename__ = "bench_articles"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(String(2000))
    views: Mapped[int]
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"))


class TagColumns:
    """A tag of an article."""

    __tablename__ = "bench_tags"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey("bench_articles.id"))
    name: Mapped[str] = mapped_column(String(50))


class Base(DeclarativeBase):
    """The declarative base of peers without their own."""


class User(UserColumns, Base):
    """An owner of keys."""


class ApiKey(KeyColumns, Base):
    """A key and its owner."""

    user: Mapped[User] = relationship()


class KeySecret(SecretColumns, Base):
    """A version of a key's secret, and the key."""

    api_key: Mapped[ApiKey] = relationship()


class Tag(TagColumns, Base):
    """A tag of an article."""


class Article(ArticleColumns, Base):
    """An article, its author and its tags."""

    author: Mapped[User] = relationship()
    tags: Mapped[list[Tag]] = relationship(order_by=Tag.id)


def is_valid(secret: SecretColumns, key: KeyColumns, owner: UserColumns, now: datetime) -> bool:
    """Return whether a secret is live, its key valid, and its owner active."""
    return (
        (secret.expires_at is None or secret.expires_at > now)
        and key.mode == "bearer"
        and key.status == "active"
        and (key.expires_at is None or key.expires_at > now)
        and owner.status == "active"
    )
