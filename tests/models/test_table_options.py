"""A model that sets `__table_args__` keeps the character set and the engine of `latchkey.Base`."""

from typing import Any

import pytest
from sqlalchemy import MetaData, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models import Base
from latchkey.models.table_options import with_options

OPTIONS = {"mysql_charset": "utf8mb4", "mysql_engine": "InnoDB"}
UNIQUE = UniqueConstraint("n")
ASCII = {"mysql_charset": "ascii", "mysql_engine": "InnoDB"}


class Probing(Base):
    """The base of the tables in this file."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


class WithoutOptions(Probing):
    __tablename__ = "options_none"

    id: Mapped[int] = mapped_column(primary_key=True)


class WithConstraint(Probing):
    __tablename__ = "options_constraint"
    __table_args__ = (UniqueConstraint("n"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


class WithComment(Probing):
    __abstract__ = True
    __table_args__: Any = {"comment": "abstract"}  # noqa: RUF012


class OfAbstract(WithComment):
    __tablename__ = "options_abstract"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize("name", Probing.metadata.tables)
def test_a_table_has_the_options_of_the_base(name: str) -> None:
    """Otherwise a text with an emoji is refused on a server whose default is another character set."""
    found = Probing.metadata.tables[name].kwargs

    assert {key: found[key] for key in OPTIONS} == OPTIONS


@pytest.mark.parametrize(
    ("declared", "complete"),
    [
        ((UNIQUE,), (UNIQUE, OPTIONS)),
        ((), (OPTIONS,)),
        ({"comment": "x"}, OPTIONS | {"comment": "x"}),
        ((UNIQUE, {"mysql_charset": "ascii"}), (UNIQUE, ASCII)),
        ((UNIQUE, Base.__table_args__), (UNIQUE, OPTIONS)),
        ("text", "text"),
    ],
)
def test_what_a_model_sets_itself_is_kept(declared: Any, complete: Any) -> None:
    assert with_options(declared) == complete
