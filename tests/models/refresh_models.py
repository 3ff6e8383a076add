"""Models for the tests only, in a separate MetaData: one for each kind of refresh (R10)."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, Integer, MetaData, String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column, relationship

from latchkey.models import Base
from latchkey.models.types import BigId, BinaryText, UtcDateTime, Words, utc_now


class RefreshBase(Base):
    """The base of tables that the migrations and models of the service do not include."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    # The database's clock, so that an UPDATE leaves it unloaded.
    stamped_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())


class Plain(RefreshBase):
    """Never refreshed."""

    __tablename__ = "refresh_plain"
    refresh_on_commit = False


class Fresh(RefreshBase):
    """A model that is refreshed in the attributes unloaded by the flush; an owner of leaves."""

    __tablename__ = "refresh_fresh"
    refresh_on_commit = True

    leaves: Mapped[list["Leaf"]] = relationship(back_populates="fresh", lazy="raise", passive_deletes="all")


class Leaf(RefreshBase):
    """The other side."""

    __tablename__ = "refresh_leaf"
    refresh_on_commit = True

    fresh_id: Mapped[int] = mapped_column(ForeignKey("refresh_fresh.id"))
    fresh: Mapped[Fresh] = relationship(back_populates="leaves", lazy="raise")


class Named(RefreshBase):
    """Refreshed in one column, always."""

    __tablename__ = "refresh_named"
    refresh_on_commit = ("name",)


class Pair(RefreshBase):
    """A primary key of two columns."""

    __tablename__ = "refresh_pair"
    refresh_on_commit = True

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    other: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


class Hooked(RefreshBase):
    """A model with an after-commit hook, which a test defines."""

    __tablename__ = "refresh_hooked"

    does: ClassVar[Any]

    async def after_commit(self, session: AsyncSession) -> None:
        await type(self).does(self, session)


class Typed(RefreshBase):
    """A column of each type."""

    __tablename__ = "refresh_typed"

    moment: Mapped[datetime | None] = mapped_column(UtcDateTime)
    text: Mapped[str | None] = mapped_column(BinaryText(64))
    words: Mapped[tuple[str, ...] | None] = mapped_column(Words)
