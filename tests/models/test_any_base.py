"""Models of any base: with the session and its promises, without Latchkey's verbs; also dataclasses and unhashable models."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import MetaData, String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, registry
from starlette.requests import Request

from latchkey.middleware.session_errors import UnwrittenWorkError
from latchkey.models import Base
from latchkey.models.types import BigId
from latchkey.service import conversion
from latchkey.service.database import SQLAlchemy
from tests.conftest import tables_of
from tests.requests import request
from tests.sessions.conftest import MakeApp, make_app
from tests.sessions.endpoints import value_route

__all__ = ["make_app"]  # a fixture of another folder

METADATA = MetaData()


class Foreign(DeclarativeBase):
    metadata = METADATA


class Plain(Foreign):
    __tablename__ = "any_plain"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


class Equal(Foreign):  # noqa: PLW1641 - which is the point
    """Equal by value, and so without a hash."""

    __tablename__ = "any_equal"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and self.name == other.name


class Data(MappedAsDataclass, Foreign):
    __tablename__ = "any_data"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50), default="")


class Mixed(MappedAsDataclass, Base):
    """A dataclass on Latchkey's base."""

    __tablename__ = "any_mixed"
    metadata = METADATA
    refresh_on_commit = True

    id: Mapped[int] = mapped_column(BigId, primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50), default="")


imperative = registry(metadata=METADATA)


@imperative.mapped
class Decorated:
    __tablename__ = "any_decorated"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


MODELS = [Plain, Equal, Data, Mixed, Decorated]
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


class Row(msgspec.Struct):
    id: int
    name: str = "never answered"


@pytest.fixture
async def tables(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(METADATA, db):
        yield


async def names(session: Any, model: type[Any]) -> list[str]:
    return list(await session.scalars(select(model.name).order_by(model.id)))


def two(model: type[Any]) -> list[Any]:
    return [model(name="a"), model(name="a")]  # equal by value, and two rows


@each_model
async def test_a_block_adds_changes_and_deletes(db: SQLAlchemy, tables: None, model: type[Any]) -> None:
    async with db.scoped_session() as session:
        rows = two(model)
        session.add_all(rows)
        await session.commit()
        rows[0].name = "b"
        await session.commit()
        assert await names(session, model) == ["b", "a"]
        await session.delete(rows[1])
        await session.commit()
        assert await names(session, model) == ["b"]


@each_model
async def test_endpoints_add_change_and_delete_and_answer(
    db: SQLAlchemy, tables: None, make_app: MakeApp, model: type[Any]
) -> None:
    async def add(request: Request) -> Any:
        rows = two(model)
        request.state.session.add_all(rows)
        await request.state.session.flush()
        return conversion.convert(rows, list[Row])

    async def change(request: Request) -> Any:
        row = (await request.state.session.scalars(select(model).order_by(model.id).limit(1))).one()
        row.name = "b"
        return conversion.convert(row, Row)

    async def remove(request: Request) -> None:
        row = (await request.state.session.scalars(select(model).order_by(model.id).limit(1))).one()
        await request.state.session.delete(row)

    app = make_app(
        value_route(add, "POST", "/add"),
        value_route(change, "PUT", "/change"),
        value_route(remove, "DELETE", "/remove"),
    )

    assert [one["name"] for one in (await request(app, "POST", "/add")).json["seen"]] == ["a", "a"]
    assert (await request(app, "PUT", "/change")).json["seen"]["name"] == "b"
    assert (await request(app, "DELETE", "/remove")).status == 200
    async with db.scoped_session() as session:
        assert await names(session, model) == ["a"]


@each_model
async def test_a_failing_endpoint_keeps_nothing(
    db: SQLAlchemy, tables: None, make_app: MakeApp, model: type[Any]
) -> None:
    async def add(request: Request) -> None:
        request.state.session.add_all(two(model))
        await request.state.session.flush()
        raise ZeroDivisionError

    assert (await request(make_app(value_route(add, "POST")), "POST", "/probe")).status == 500
    async with db.scoped_session() as session:
        assert await session.scalar(select(func.count()).select_from(model)) == 0


@each_model
async def test_uncommitted_work_of_a_block_is_an_error(
    db: SQLAlchemy, tables: None, model: type[Any]
) -> None:
    with pytest.raises(UnwrittenWorkError, match=model.__name__):
        async with db.scoped_session() as session:
            session.add(model(name="a"))


@pytest.mark.parametrize("refresh", [None, True, False])
async def test_the_verbs_take_a_dataclass_on_our_base(
    db: SQLAlchemy, tables: None, refresh: bool | None
) -> None:
    one = await Mixed.create(name="a", auto_commit=True, refresh=refresh)
    other = await Mixed.create(name="a", auto_commit=True, refresh=refresh)

    await one.update(name="b", auto_commit=True, refresh=refresh)
    await other.remove(auto_commit=True)
    assert [row.name for row in await Mixed.filter().all()] == ["b"]
    assert conversion.convert(one, Row).name == "b"
