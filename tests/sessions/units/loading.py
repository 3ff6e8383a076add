"""Relations and columns that are loaded with, or after, their row."""

from typing import Any

from sqlalchemy import (
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    contains_eager,
    defer,
    immediateload,
    joinedload,
    lazyload,
    load_only,
    raiseload,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
)

from tests.sessions.shop import PEOPLE, Order, Person
from tests.sessions.units.unit import family, loaded, unit

LOADS: list[tuple[str, Any]] = [
    ("selectinload", selectinload(Person.orders)),
    ("joinedload", joinedload(Person.orders)),
    ("inner joinedload", joinedload(Person.orders, innerjoin=True)),
    ("subqueryload", subqueryload(Person.orders)),
    ("immediateload", immediateload(Person.orders)),
    ("two steps", selectinload(Person.orders).selectinload(Order.tags)),
    ("mixed steps", joinedload(Person.orders).selectinload(Order.tags)),
    ("to one", selectinload(Person.boss)),
    ("to one, joined", joinedload(Person.boss)),
    ("self-referential", selectinload(Person.staff, recursion_depth=2)),
    ("some of them", selectinload(Person.orders.and_(Order.title != "pen"))),
    ("raiseload of all", raiseload("*")),
    ("raiseload", raiseload(Person.orders)),
    ("load_only", load_only(Person.name)),
    ("load_only, raising", load_only(Person.name, raiseload=True)),
    ("defer", defer(Person.city)),
    ("undefer", undefer(Person.bio)),
    ("undefer all", undefer("*")),
    ("columns of what is loaded", selectinload(Person.orders).load_only(Order.title)),
    ("criteria", with_loader_criteria(Order, Order.title != "ink")),
]


async def load(session: AsyncSession, option: Any) -> Any:
    options = [option, selectinload(Person.orders)] if "Criteria" in type(option).__name__ else [option]
    found = (await session.scalars(PEOPLE.options(*options))).unique().all()
    return [(one, loaded(one)) for one in found]


family("ORM Querying Guide / Relationship loading", "load", load, *LOADS)


@unit("ORM Querying Guide / Relationship loading")
async def contains_eager_of_a_join(session: AsyncSession) -> Any:
    statement = (
        select(Person).join(Person.orders).where(Order.title == "pen").options(contains_eager(Person.orders))
    )
    return [(one, loaded(one)) for one in (await session.scalars(statement)).unique()]


@unit("ORM Querying Guide / Relationship loading")
async def joined_collections_need_unique(session: AsyncSession) -> Any:
    return (await session.scalars(PEOPLE.options(joinedload(Person.orders)))).all()


@unit("ORM Querying Guide / Relationship loading")
async def refresh_a_relationship(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    await session.refresh(ann, ["orders"])
    return ann.orders


@unit("ORM Querying Guide / Relationship loading")
async def lazyload_within_run_sync(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1, options=[lazyload(Person.orders)])
    return await session.run_sync(lambda _inside: list(ann.orders))


@unit("ORM Querying Guide / Column loading")
async def refresh_a_deferred_column(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    await session.refresh(ann, ["bio"])
    return ann.bio
