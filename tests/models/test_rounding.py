"""A decimal is written as its column holds it, so that the row that was written equals the row that is read."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import MetaData, Numeric, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from latchkey.models import Base
from latchkey.models.errors import InvalidValueError
from latchkey.models.rounding import rounding_of
from latchkey.models.types import BigId
from latchkey.service.database import SQLAlchemy
from tests.conftest import tables_of

pytestmark = pytest.mark.usefixtures("tables")


class Price(Base):
    """Decimals of several kinds."""

    __tablename__ = "rounding_prices"
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    net: Mapped[Decimal] = mapped_column(Numeric(6, 2))
    whole: Mapped[Decimal | None] = mapped_column(Numeric(6))
    fine: Mapped[Decimal | None] = mapped_column(Numeric(14, 6))


class Other(DeclarativeBase):
    """Another base."""

    metadata = Price.metadata


class Fee(Other):
    """A table of another base."""

    __tablename__ = "rounding_fees"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(6, 2))


@pytest.fixture
async def tables(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(Price.metadata, db):
        yield


VALUES: dict[Any, str] = {
    Decimal("2.555"): "2.56",
    Decimal("2.545"): "2.55",
    Decimal("2.675"): "2.68",
    Decimal("-2.675"): "-2.68",
    Decimal("1E+3"): "1000.00",
    Decimal("0.0049999"): "0.00",
    20: "20.00",
    2.675: "2.68",
    2.5: "2.50",
}


async def test_what_was_written_equals_what_is_read(db: SQLAlchemy) -> None:
    """The text as well, because answers contain it."""
    async with db.scoped_session() as session:
        rows = [await Price.create(net=value) for value in VALUES]
        written = [str(row.net) for row in rows]
        await session.commit()
        session.expunge_all()
        read = [str(row.net) for row in await Price.filter().order_by("id").all()]

    assert written == list(VALUES.values())
    assert read == written


async def test_every_kind_of_column(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        row = await Price.create(net=1, whole=Decimal("2.5"), fine=Decimal(1) / 3)
        await session.commit()
        written = (row.whole, row.fine)
        await row.refresh()

    assert written == (Decimal(3), Decimal("0.333333"))
    assert (row.whole, row.fine) == written


async def test_an_update_too(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        row = await Price.create(net=1, fine=1)
        await row.update(net=Decimal("3.145"))
        assert str(row.net) == "3.15"
        await Price.filter().update(fine=Decimal("0.00000049"), net=7)
        await session.commit()
        assert (str(row.net), row.fine) == ("7.00", Decimal(0))
        await row.refresh()
        assert (str(row.net), row.fine) == ("7.00", Decimal(0))


async def test_a_value_that_rounds_to_the_stored_one_is_no_change(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        row = await Price.create(net=Decimal("2.50"))
        row.net = Decimal("2.501")
        await session.flush()
        assert not inspect(row).attrs.net.history.has_changes()
        assert str(row.net) == "2.50"
        await session.rollback()


async def test_a_value_that_rounds_out_of_range_is_refused(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(
            InvalidValueError, match=r"Price\.net: the value is out of range; it must be below 10000"
        ):
            await Price.create(net=Decimal("9999.995"))
        await session.rollback()
        with pytest.raises(InvalidValueError, match="not a finite number"):
            await Price.create(net=Decimal("NaN"))
        await session.rollback()
        with pytest.raises(InvalidValueError, match=r"Price\.net"):
            await Price.create(net=Decimal("1e999999"))
        await session.rollback()


async def test_models_of_another_base_too(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        fee = Fee(amount=Decimal("2.675"))
        session.add(fee)
        await session.commit()

    assert str(fee.amount) == "2.68"


async def test_the_server_has_nothing_to_round(db: SQLAlchemy, caplog: pytest.LogCaptureFixture) -> None:
    """MariaDB and MySQL warn about each value that they round, and the driver logs it."""
    async with db.scoped_session() as session:
        await Price.create(net=Decimal("2.555"))
        await session.commit()

    assert "truncated" not in caplog.text


@pytest.mark.parametrize("kind", [Numeric(), Numeric(6, 3, asdecimal=False)], ids=["no precision", "a float"])
async def test_a_column_of_another_kind_keeps_its_value(kind: Numeric[Any]) -> None:
    assert rounding_of(kind) is None
