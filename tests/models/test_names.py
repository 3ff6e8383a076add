"""Attributes that the verbs could not access are refused when the class is created, by a rule derived from the verbs."""

import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData, String, literal, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    column_property,
    mapped_column,
    registry,
    relationship,
    synonym,
)
from starlette.requests import Request

from latchkey.models import Base
from latchkey.models.base import ARGUMENTS
from latchkey.models.errors import NameTakenError
from latchkey.models.query import Query
from latchkey.models.types import BigId
from latchkey.service.database import SQLAlchemy
from tests.conftest import tables_of
from tests.requests import request
from tests.sessions.conftest import MakeApp, make_app
from tests.sessions.endpoints import value_route

__all__ = ["make_app"]  # a fixture of another folder


def own_base() -> type[Base]:
    """Return a base whose classes no other test uses."""

    class Own(Base):
        __abstract__ = True
        registry = registry()
        _sa_registry = registry
        metadata = MetaData()

    return Own


@pytest.fixture
def base() -> Iterator[type[Base]]:
    own = own_base()
    yield own
    own.registry.dispose()


def make(**attributes: Any) -> type[Base]:
    key = {"id": mapped_column(BigId, primary_key=True), "__annotations__": {"id": Mapped[int]}}
    return type("Team", (own_base(),), {"__tablename__": "names_teams", **key, **attributes})


NAMES = [
    *("refresh", "session", "save", "filter", "a__b", "auto_commit", "update", "get", "create", "remove", "served"),
    *("resolve", "set_session", "filter_by", "after_commit", "has_after_commit", "refresh_on_commit", "cls", "self"),
    *("runs_in_doubt", "scoped_session", "_served_by", "_Team__private", "a__", "identities__in"),
]  # fmt: skip
"""Names that models have had; the rule itself is compared with the verbs below."""


def public_names() -> set[str]:
    class Bare(DeclarativeBase):
        """A base to find the names that SQLAlchemy reserves and refuses itself: `metadata`, `registry`."""

    sqlalchemys = dir(Bare)
    return {name for name in dir(Base) if not name.startswith("__") and name not in sqlalchemys}


def verbs_arguments() -> set[str]:
    """Return the arguments of every function with arbitrary keyword arguments, in another way than the rule does."""
    found = set()
    for owner in (Base, Query):
        for one in vars(owner).values():
            function = inspect.unwrap(getattr(one, "function", getattr(one, "__func__", one)))
            if inspect.isfunction(function) and function.__code__.co_flags & inspect.CO_VARKEYWORDS:
                code = function.__code__
                found |= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return found


def test_the_rule_is_made_from_the_verbs() -> None:
    assert set(ARGUMENTS) == verbs_arguments()
    assert {"session", "auto_commit", "refresh", "cls", "self"} <= set(ARGUMENTS)


@pytest.mark.parametrize("name", sorted({*NAMES, *public_names(), *verbs_arguments()}))
def test_a_column_of_such_a_name_is_refused_with_another_name(name: str) -> None:
    with pytest.raises(NameTakenError) as refused:
        make(**{name: mapped_column(String(20))})

    assert str(refused.value).startswith(f"Team.{name}: ")
    (other,) = re.findall(r"`(\w+): Mapped\[\.\.\.\] = mapped_column\(\"", str(refused.value))
    assert str(refused.value).endswith(f'= mapped_column("{name}")`.')
    assert other in make(**{other: mapped_column(name, String(20))}).__mapper__.attrs


MAPPED = [
    pytest.param(lambda: synonym("id"), id="a synonym"),
    pytest.param(lambda: relationship("Team", viewonly=True), id="a relation"),
    pytest.param(lambda: hybrid_property(lambda self: self.id), id="a hybrid property"),
    pytest.param(lambda: association_proxy("other", "id"), id="an association proxy"),
    pytest.param(lambda: column_property(literal(1)), id="an expression"),
]


@pytest.mark.parametrize("name", ["update", "session", "a__b"])
@pytest.mark.parametrize("mapped", MAPPED)
def test_every_kind_of_mapped_attribute_is_refused(name: str, mapped: Callable[..., Any]) -> None:
    with pytest.raises(NameTakenError, match=rf"^Team\.{name}: "):
        make(**{name: mapped()})


def test_a_dataclass_is_refused_too(base: type[Base]) -> None:
    with pytest.raises(NameTakenError):

        class Team(MappedAsDataclass, base):  # type: ignore[misc,valid-type]  # a base that only this test has
            __tablename__ = "names_dataclass"

            id: Mapped[int] = mapped_column(BigId, primary_key=True, init=False)
            update: Mapped[str] = mapped_column(String(20), default="")


def test_a_name_from_a_mixin_is_refused_too(base: type[Base]) -> None:
    class Mixin:
        auto_commit: Mapped[str] = mapped_column(String(20))

    with pytest.raises(NameTakenError, match=r"^Team\.auto_commit: "):
        type("Team", (Mixin, base), {"__tablename__": "t", "id": mapped_column(BigId, primary_key=True)})


def test_the_other_side_of_a_backref_is_refused_when_it_is_made(base: type[Base]) -> None:
    class Child(base):  # type: ignore[misc,valid-type]  # a base that only this test has
        __tablename__ = "names_children"

        id: Mapped[int] = mapped_column(BigId, primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("names_parents.id"))
        parent = relationship("Parent", backref="update")

    class Parent(base):  # type: ignore[misc,valid-type]  # a base that only this test has
        __tablename__ = "names_parents"

        id: Mapped[int] = mapped_column(BigId, primary_key=True)

    with pytest.raises((NameTakenError, InvalidRequestError), match="update"):
        base.registry.configure()


def test_another_base_may_call_its_attributes_as_it_likes() -> None:
    class Foreign(DeclarativeBase):
        pass

    class Team(Foreign):
        __tablename__ = "names_foreign"

        id: Mapped[int] = mapped_column(BigId, primary_key=True)
        update: Mapped[str] = mapped_column(String(20))
        a__b: Mapped[str] = mapped_column(String(20))

    Foreign.registry.configure()


# ---------------------------------------------------------------------- the other name works


class Renamed(Base):
    __tablename__ = "names_renamed"
    metadata = MetaData()

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    update_: Mapped[str] = mapped_column("update", String(20))
    a_b_: Mapped[str] = mapped_column("a__b", String(20))


@pytest.fixture
async def table(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(Renamed.metadata, db):
        yield


async def work() -> str:
    one = await Renamed.create(update_="new", a_b_="x")
    await one.update(update_="newer")
    found = (
        await Renamed.filter(update___in=["newer"], a_b_="x", update___like="n%").order_by("-update_").one()
    )
    assert found is one
    assert Renamed.scoped_session is not None
    return (await Renamed.scoped_session().execute(select(Renamed.update_))).scalar_one()


async def test_the_other_name_reaches_the_column(db: SQLAlchemy, table: None) -> None:
    async with db.scoped_session() as session:
        assert await work() == "newer"
        await session.commit()


async def test_the_other_name_reaches_the_column_in_an_endpoint(table: None, make_app: MakeApp) -> None:
    async def endpoint(_request: Request) -> str:
        return await work()

    assert (await request(make_app(value_route(endpoint, "POST")), "POST", "/probe")).json == {
        "seen": "newer"
    }
