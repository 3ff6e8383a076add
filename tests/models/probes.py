"""Models for the tests only, in a separate MetaData: one for each kind of refresh (R10)."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, Integer, MetaData, String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column, relationship

from latchkey.models import Base
from latchkey.models.types import BigId, BinaryText, UtcDateTime, Words, utc_now


class Probe(Base):
    """The base of tables that the migrations and models of the service do not include."""

    __abstract__ = True
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    # The database's clock, so that an UPDATE leaves it unloaded.
    stamped_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())


class Plain(Probe):
    """Never refreshed."""

    __tablename__ = "probe_plain"
    refresh_on_commit = False


class Fresh(Probe):
    """A model that is refreshed in the attributes unloaded by the flush; an owner of leaves."""

    __tablename__ = "probe_fresh"
    refresh_on_commit = True

    leaves: Mapped[list["Leaf"]] = relationship(back_populates="fresh", lazy="raise", passive_deletes="all")


class Leaf(Probe):
    """The other side."""

    __tablename__ = "probe_leaf"
    refresh_on_commit = True

    fresh_id: Mapped[int] = mapped_column(ForeignKey("probe_fresh.id"))
    fresh: Mapped[Fresh] = relationship(back_populates="leaves", lazy="raise")


class Named(Probe):
    """Refreshed in one column, always."""

    __tablename__ = "probe_named"
    refresh_on_commit = ("name",)


class Pair(Probe):
    """A primary key of two columns."""

    __tablename__ = "probe_pair"
    refresh_on_commit = True

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    other: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


class Hooked(Probe):
    """A model with an after-commit hook, which a test defines."""

    __tablename__ = "probe_hooked"

    does: ClassVar[Any]

    async def after_commit(self, session: AsyncSession) -> None:
        await type(self).does(self, session)


class Typed(Probe):
    """A column of each type."""

    __tablename__ = "probe_typed"

    moment: Mapped[datetime | None] = mapped_column(UtcDateTime)
    text: Mapped[str | None] = mapped_column(BinaryText(64))
    words: Mapped[tuple[str, ...] | None] = mapped_column(Words)
