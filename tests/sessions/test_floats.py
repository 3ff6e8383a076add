"""FLOAT columns have the same value in both protocols of MariaDB and MySQL, and in every session."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Double, Float, Integer, MetaData, Numeric, bindparam, func, select, text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column
from starlette.requests import Request

from latchkey.models import Base
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.prepared import Prepared
from latchkey.service.settings import Settings
from tests.conftest import tables_of
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route

FIXED = Float().with_variant(mysql.FLOAT(10, 4), "mysql")


class Weight(Base):
    """A number of each kind."""

    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    __tablename__ = "float_weights"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    single: Mapped[float | None] = mapped_column(Float)
    precise: Mapped[float | None] = mapped_column(Float(53))
    fixed: Mapped[float | None] = mapped_column(FIXED)
    double: Mapped[float | None] = mapped_column(Double)
    exact: Mapped[Any] = mapped_column(Float(asdecimal=True), nullable=True)
    price: Mapped[Any] = mapped_column(Numeric(20, 6), nullable=True)


VALUES = [0.1, 3.14159, 1234.5678, 16777216.0, -0.333333333, 1e-30, 1.5e30, 0.0, 2**0.5, 99999.5, 123456.7]
STATEMENTS = [
    select(Weight.single, Weight.precise, Weight.fixed, Weight.double, Weight.exact, Weight.price).where(Weight.id > bindparam("low")),
    select(Weight.single * 2, (Weight.single + 1).label("more")).where(Weight.id > bindparam("low")),
    text("SELECT single, precise, fixed, `double`, MAX(single) OVER () FROM float_weights WHERE id > :low"),
    text("SELECT single AS a, fixed AS a FROM float_weights WHERE id > :low"),
]  # fmt: skip


@pytest.fixture
async def weights(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(Weight.metadata, db):
        async with db.scoped_session() as session:
            for number, value in enumerate(VALUES, 1):
                fixed = value if abs(value) < 100000 else None
                price = round(value, 6) if abs(value) < 1e10 else None
                session.add(
                    Weight(
                        id=number,
                        single=value,
                        precise=value,
                        fixed=fixed,
                        double=value,
                        exact=value,
                        price=price,
                    )
                )
            session.add(Weight(id=99))
            await session.commit()
        yield


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("statement", STATEMENTS, ids=["columns", "expressions", "text", "one name twice"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_numbers_are_read_as_a_plain_session_reads_them(
    db: SQLAlchemy, settings: Settings, make_app: MakeApp, method: str, statement: Any
) -> None:
    engine = create_async_engine(settings.database_url)  # the text protocol
    async with AsyncSession(engine) as plain:
        wanted = [tuple(row) for row in await plain.execute(statement, {"low": 0})]
    await engine.dispose()
    seen: list[Any] = []

    async def read(request: Request) -> None:
        for _ in range(2):  # the second time from the statement cache
            seen.append([tuple(row) for row in await request.state.session.execute(statement, {"low": 0})])

    assert (await request(make_app(value_route(read, method)), method, "/probe")).status == 200
    async with db.scoped_session() as session:
        seen.append([tuple(row) for row in await session.execute(statement, {"low": 0})])

    assert seen == [wanted] * 3
    assert len(wanted) == len(VALUES) + 1


@pytest.mark.usefixtures("weights")
async def test_a_prepared_read_reads_the_same(db: SQLAlchemy) -> None:
    columns = (
        *(Weight.single, Weight.precise, Weight.fixed, Weight.double, Weight.exact, Weight.price),
        *(Weight.single * 3, func.coalesce(Weight.single, 0.5), func.power(Weight.double, 2)),
        *(func.max(Weight.fixed).over(), func.abs(Weight.fixed)),
    )
    statement = select(*columns).where(Weight.id > bindparam("low", type_=Integer))
    async with db.scoped_session() as session:
        wanted = [tuple(row) for row in await session.execute(statement, {"low": 0})]
        await session.rollback()
        found = await session.read(Prepared(statement), {"low": 0})

    assert [tuple(row) for row in found] == wanted
