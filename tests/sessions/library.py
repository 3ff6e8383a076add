"""More models of the units of work: the kinds of mapping that `tests.sessions.shop` does not have."""

import uuid
from typing import Any

from sqlalchemy import FetchedValue, ForeignKey, Integer, String, Uuid, func, select, text
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.ext.hybrid import hybrid_method, hybrid_property
from sqlalchemy.ext.orderinglist import ordering_list
from sqlalchemy.orm import (
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    attribute_keyed_dict,
    column_property,
    mapped_column,
    query_expression,
    relationship,
    synonym,
)

from tests.sessions.shop import Model

INNODB: Any = {"mysql_engine": "InnoDB"}


class Author(Model):
    """Collections that are never loaded whole, and one that is only read."""

    __tablename__ = "like_authors"
    __table_args__ = INNODB

    id: Mapped[int] = mapped_column(primary_key=True)
    first: Mapped[str] = mapped_column(String(20))
    last: Mapped[str] = mapped_column(String(20))
    called = synonym("first")
    guess: Mapped[int | None] = query_expression()

    books: WriteOnlyMapped["Book"] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, order_by="Book.id", back_populates="author"
    )
    shelf: DynamicMapped["Book"] = relationship(order_by="Book.id", viewonly=True)
    long_books: Mapped[list["Book"]] = relationship(
        primaryjoin="and_(Author.id == Book.author_id, Book.pages > 100)", viewonly=True, order_by="Book.id"
    )

    @hybrid_property
    def full(self) -> str:
        """Return both names, which can be assigned together too."""
        return f"{self.first} {self.last}"

    @full.inplace.expression
    @classmethod
    def _full(cls) -> Any:
        return cls.first.concat(" ").concat(cls.last)

    @full.inplace.setter
    def _set_full(self, value: str) -> None:
        self.first, self.last = value.split(" ")

    @full.inplace.update_expression
    @classmethod
    def _update_full(cls, value: Any) -> list[tuple[Any, Any]]:
        first, last = value.split(" ")
        return [(cls.first, first), (cls.last, last)]

    @hybrid_method
    def is_longer_than(self, length: int) -> Any:
        """Return whether the last name is longer."""
        return func.length(self.last) > length if isinstance(self, type) else len(self.last) > length


class Book(AsyncAttrs, Model):
    """A row with a version that is a UUID, values of the server, and three kinds of collections."""

    __tablename__ = "like_books"
    __table_args__ = INNODB

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    pages: Mapped[int] = mapped_column(Integer, server_default=text("10"))
    changed: Mapped[int] = mapped_column(default=0, onupdate=lambda: 7)
    counted: Mapped[int | None] = mapped_column(server_onupdate=FetchedValue())
    version: Mapped[uuid.UUID] = mapped_column(Uuid)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("like_authors.id", ondelete="CASCADE"))

    author: Mapped[Author | None] = relationship(back_populates="books")
    chapters: Mapped[list["Chapter"]] = relationship(
        order_by="Chapter.position", collection_class=ordering_list("position"), cascade="all, delete-orphan"
    )
    notes: Mapped[dict[str, "Note"]] = relationship(
        collection_class=attribute_keyed_dict("word"), cascade="all, delete-orphan"
    )
    said: AssociationProxy[dict[str, str]] = association_proxy(
        "notes", "said", creator=lambda word, said: Note(word=word, said=said)
    )

    __mapper_args__ = {"version_id_col": version, "version_id_generator": lambda _version: uuid.UUID(int=5)}  # noqa: RUF012


class Chapter(Model):
    """A row with a place in a list."""

    __tablename__ = "like_chapters"
    __table_args__ = INNODB

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    position: Mapped[int]
    book_id: Mapped[int] = mapped_column(ForeignKey("like_books.id", ondelete="CASCADE"))


class Note(Model):
    """A row that is found by a word."""

    __tablename__ = "like_notes"
    __table_args__ = INNODB

    book_id: Mapped[int] = mapped_column(ForeignKey("like_books.id", ondelete="CASCADE"), primary_key=True)
    word: Mapped[str] = mapped_column(String(20), primary_key=True)
    said: Mapped[str] = mapped_column(String(50))


class Staff(Model):
    """Three classes in one table, the last with a column of its own."""

    __tablename__ = "like_staff"
    __table_args__ = INNODB

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))

    __mapper_args__: Any = {"polymorphic_on": "kind", "polymorphic_identity": "staff"}  # noqa: RUF012


class Librarian(Staff):
    """A class with a column of its own in the table of its base."""

    desk: Mapped[str | None] = mapped_column(String(10))

    __mapper_args__ = {"polymorphic_identity": "librarian"}  # noqa: RUF012


class Head(Librarian):
    """A subclass of a subclass."""

    __mapper_args__ = {"polymorphic_identity": "head", "polymorphic_load": "inline"}  # noqa: RUF012


Author.book_count = column_property(
    select(func.count(Book.id)).where(Book.author_id == Author.id).correlate_except(Book).scalar_subquery(),
    deferred=True,
)


def rows() -> list[Model]:
    """Return the initial rows for every unit of work."""
    eco, calvino = Author(id=1, first="Umberto", last="Eco"), Author(id=2, first="Italo", last="Calvino")
    return [
        eco,
        calvino,
        Book(id=1, title="rose", pages=500, author=eco, chapters=[Chapter(id=1, title="a"), Chapter(id=2, title="b")]),
        Book(id=2, title="island", author=eco, notes={"sea": Note(word="sea", said="blue")}),
        Book(id=3, title="cities", pages=150, author=calvino),
        Staff(id=1),
        Librarian(id=2, desk="left"),
        Head(id=3, desk="right"),
    ]  # fmt: skip
