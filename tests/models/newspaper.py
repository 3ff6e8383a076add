"""Models of a newspaper, in a separate MetaData: relations of all kinds, for reads into Structs."""

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    Double,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    func,
    select,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship, synonym

from latchkey.models import Base
from latchkey.models.limit import Quota
from latchkey.models.types import BigId, BinaryText, Json, UtcDateTime, Words


class NewspaperBase(Base):
    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class Kind(enum.Enum):
    NEWS = "news"
    OPINION = "opinion"


article_tags = Table(
    "newspaper_article_tags",
    NewspaperBase.metadata,
    Column("article_id", ForeignKey("newspaper_articles.id"), primary_key=True),
    Column("tag_id", ForeignKey("newspaper_tags.id"), primary_key=True),
    Column("position", Integer, nullable=False),
)


class Publisher(NewspaperBase):
    __tablename__ = "newspaper_publishers"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


class Author(NewspaperBase):
    __tablename__ = "newspaper_authors"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    bio: Mapped[str | None] = mapped_column(String(50))
    publisher_id: Mapped[int] = mapped_column(ForeignKey("newspaper_publishers.id"))
    publisher: Mapped[Publisher] = relationship(lazy="raise")
    mentor_id: Mapped[int | None] = mapped_column(ForeignKey("newspaper_authors.id"))
    mentor: Mapped["Author | None"] = relationship(
        remote_side="Author.id", lazy="raise", back_populates="pupils", foreign_keys=mentor_id
    )
    pupils: Mapped[list["Author"]] = relationship(
        lazy="raise", back_populates="mentor", order_by="Author.id", foreign_keys=mentor_id
    )
    articles: Mapped[list["Article"]] = relationship(
        lazy="raise", back_populates="author", order_by="Article.id", foreign_keys="Article.author_id"
    )
    desk: Mapped["Desk | None"] = relationship(lazy="raise", back_populates="author")


class Desk(NewspaperBase):
    """The desk of an author, which may be missing: a relation to one whose key is on the other side."""

    __tablename__ = "newspaper_desks"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    place: Mapped[str] = mapped_column(String(50))
    author_id: Mapped[int] = mapped_column(ForeignKey("newspaper_authors.id"), unique=True)
    author: Mapped[Author] = relationship(lazy="raise", back_populates="desk")


class Article(NewspaperBase):
    __tablename__ = "newspaper_articles"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    slug: Mapped[str] = mapped_column(String(50), unique=True)
    title: Mapped[str] = mapped_column(String(50))
    subtitle: Mapped[str | None] = mapped_column(String(50))
    views: Mapped[int] = mapped_column(default=0)
    author_id: Mapped[int] = mapped_column(ForeignKey("newspaper_authors.id"))
    editor_id: Mapped[int | None] = mapped_column(ForeignKey("newspaper_authors.id"))
    author: Mapped[Author] = relationship(lazy="raise", back_populates="articles", foreign_keys=author_id)
    editor: Mapped[Author | None] = relationship(lazy="raise", foreign_keys=editor_id)
    comments: Mapped[list["Comment"]] = relationship(
        lazy="raise", back_populates="article", order_by="Comment.id.desc()"
    )
    visible: Mapped[list["Comment"]] = relationship(
        lazy="raise",
        viewonly=True,
        primaryjoin="and_(Comment.article_id == Article.id, Comment.hidden.is_(False))",
        order_by="Comment.id",
    )
    tags: Mapped[list["Tag"]] = relationship(
        lazy="raise", secondary=article_tags, order_by=article_tags.c.position
    )
    heading = synonym("title")

    @hybrid_property
    def is_read(self) -> bool:
        return self.views > 0


class Comment(NewspaperBase):
    __tablename__ = "newspaper_comments"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    body: Mapped[str] = mapped_column(String(50))
    hidden: Mapped[bool] = mapped_column(Boolean, default=False)
    article_id: Mapped[int] = mapped_column(ForeignKey("newspaper_articles.id"))
    article: Mapped[Article] = relationship(lazy="raise", back_populates="comments")
    author_id: Mapped[int] = mapped_column(ForeignKey("newspaper_authors.id"))
    author: Mapped[Author] = relationship(lazy="raise")


Article.comment_count = column_property(
    select(func.count(Comment.id)).where(Comment.article_id == Article.id).scalar_subquery(), deferred=True
)


class Tag(NewspaperBase):
    __tablename__ = "newspaper_tags"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(BinaryText(50), unique=True)


class Page(NewspaperBase):
    """A row with a primary key of two columns."""

    __tablename__ = "newspaper_pages"
    issue: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    advertisements: Mapped[list["Advertisement"]] = relationship(
        lazy="raise", back_populates="page", order_by="Advertisement.id"
    )


class Advertisement(NewspaperBase):
    __tablename__ = "newspaper_advertisements"
    __table_args__ = (
        ForeignKeyConstraint(["issue", "number"], ["newspaper_pages.issue", "newspaper_pages.number"]),
        Base.__table_args__,
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    issue: Mapped[int | None]
    number: Mapped[int | None]
    text: Mapped[str] = mapped_column(String(50))
    page: Mapped[Page | None] = relationship(lazy="raise", back_populates="advertisements")


class Everything(NewspaperBase):
    """A column of each type."""

    __tablename__ = "newspaper_everything"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    moment: Mapped[datetime | None] = mapped_column(UtcDateTime)
    day: Mapped[date | None] = mapped_column(Date)
    single: Mapped[float | None] = mapped_column(Float)
    double: Mapped[float | None] = mapped_column(Double)
    price: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))
    kind: Mapped[Kind | None] = mapped_column(Enum(Kind))
    word: Mapped[str | None] = mapped_column(String(20))
    flag: Mapped[bool | None] = mapped_column(Boolean)
    document: Mapped[Any] = mapped_column(JSON, nullable=True)
    quota: Mapped[Quota | None] = mapped_column(Json(Quota))
    words: Mapped[tuple[str, ...] | None] = mapped_column(Words)
    key: Mapped[str | None] = mapped_column(BinaryText(20))
    # The name of the column is not that of the attribute.
    renamed: Mapped[int | None] = mapped_column("another_name")
