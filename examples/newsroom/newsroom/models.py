"""The tables: articles with tags and comments, and what readers do with them."""

from datetime import datetime

from sqlalchemy import Column, ForeignKey, String, Table, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from latchkey import Base, BigId, User, UtcDateTime, utc_now

article_tags = Table(
    "newsroom_article_tags",
    Base.metadata,
    Column("article_id", ForeignKey("newsroom_articles.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("newsroom_tags.id"), primary_key=True, index=True),
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)


class Tag(Base):
    __tablename__ = "newsroom_tags"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)


class Article(Base):
    __tablename__ = "newsroom_articles"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    slug: Mapped[str] = mapped_column(String(120), unique=True)
    title: Mapped[str] = mapped_column(String(120))
    summary: Mapped[str] = mapped_column(String(300))
    body: Mapped[str] = mapped_column(Text)
    favourites: Mapped[int] = mapped_column(default=0)
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())

    author: Mapped[User] = relationship()
    tags: Mapped[list[Tag]] = relationship(secondary=article_tags, order_by=Tag.name, passive_deletes=True)


class Comment(Base):
    __tablename__ = "newsroom_comments"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    article_id: Mapped[int] = mapped_column(ForeignKey(Article.id, ondelete="CASCADE"), index=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    body: Mapped[str] = mapped_column(String(2000))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())

    author: Mapped[User] = relationship()


class Favourite(Base):
    """An article that a reader marked."""

    __tablename__ = "newsroom_favourites"

    article_id: Mapped[int] = mapped_column(ForeignKey(Article.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)


class Follow(Base):
    """A reader who follows an author."""

    __tablename__ = "newsroom_follows"

    reader_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
