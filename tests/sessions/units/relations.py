"""Relationships and their cascades."""

from typing import Any

from sqlalchemy import (
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    selectinload,
)

from tests.sessions.shop import Order, Person, Tag, orders_tags
from tests.sessions.units.unit import unit


async def orders_of(session: AsyncSession, number: int) -> Person:
    return await session.get_one(
        Person, number, options=[selectinload(Person.orders).selectinload(Order.tags)]
    )


@unit("Cascades / save-update")
async def append_to_a_collection(session: AsyncSession) -> Any:
    ann = await orders_of(session, 1)
    ann.orders.append(Order(id=10, title="hat"))
    await session.commit()
    return [(one.id, one.person_id) for one in ann.orders]


@unit("Cascades / save-update")
async def add_with_a_new_collection(session: AsyncSession) -> Any:
    session.add(
        Person(id=10, name="dee", orders=[Order(id=10, title="hat", tags=[Tag(id=10, name="green")])])
    )
    await session.commit()
    return (await session.execute(select(orders_tags).order_by("order_id", "tag_id"))).all()


@unit("Cascades / save-update")
async def set_the_other_side(session: AsyncSession) -> Any:
    ann = await orders_of(session, 1)
    order = Order(id=10, title="hat", person=ann)
    return [order in session, order in ann.orders]


@unit("Cascades / delete-orphan")
async def remove_from_a_collection(session: AsyncSession) -> Any:
    ann = await orders_of(session, 1)
    ann.orders.pop(0)
    await session.commit()
    return (await session.scalars(select(Order.id).order_by(Order.id))).all()


@unit("Cascades / delete-orphan")
async def replace_a_collection(session: AsyncSession) -> Any:
    ann = await orders_of(session, 1)
    ann.orders = [Order(id=10, title="hat")]
    await session.commit()
    return (await session.scalars(select(Order.id).order_by(Order.id))).all()


@unit("Cascades / delete-orphan")
async def move_to_another_owner(session: AsyncSession) -> Any:
    ann, bob = await orders_of(session, 1), await orders_of(session, 2)
    bob.orders.append(ann.orders[0])
    await session.commit()
    return (await session.execute(select(Order.id, Order.person_id).order_by(Order.id))).all()


@unit("Cascades / delete")
async def delete_what_has_a_collection(session: AsyncSession) -> Any:
    bob = await orders_of(session, 2)
    await session.delete(bob)
    await session.commit()
    return (await session.scalars(select(Order.id).order_by(Order.id))).all()


@unit("Cascades / delete")
async def delete_what_others_point_to(session: AsyncSession) -> Any:
    ann = await session.get_one(
        Person, 1, options=[selectinload(Person.staff), selectinload(Person.orders).selectinload(Order.tags)]
    )
    await session.delete(ann)
    await session.commit()
    return (await session.execute(select(Person.id, Person.boss_id).order_by(Person.id))).all()


@unit("Relationship configuration / Many to many")
async def link_and_unlink(session: AsyncSession) -> Any:
    pen = await session.get_one(Order, 1, options=[selectinload(Order.tags)])
    pen.tags = [one for one in pen.tags if one.name == "red"] + [Tag(id=10, name="green")]
    await session.commit()
    return (await session.execute(select(orders_tags).order_by("order_id", "tag_id"))).all()


@unit("Relationship configuration / Association proxy")
async def names_of_tags(session: AsyncSession) -> Any:
    pen = await session.get_one(Order, 1, options=[selectinload(Order.tags)])
    pen.tag_names.extend(["green"])
    pen.tags[-1].id = 10
    await session.commit()
    return list(pen.tag_names)


@unit("Relationship configuration / Adjacency list")
async def point_to_oneself(session: AsyncSession) -> Any:
    bob = await session.get_one(Person, 2, options=[selectinload(Person.boss)])
    bob.boss = await session.get_one(Person, 3)
    await session.commit()
    return bob.boss_id


@unit("Relationship configuration / Foreign keys")
async def a_key_of_nobody(session: AsyncSession) -> Any:
    session.add(Order(id=10, title="hat", person_id=99))
    await session.commit()


@unit("Relationship configuration / Foreign keys")
async def new_rows_in_the_right_order(session: AsyncSession) -> Any:
    dee = Person(id=11, name="dee", boss=Person(id=12, name="eve"))
    session.add_all([Order(id=10, title="hat", person=dee)])
    await session.commit()
    return (
        await session.execute(select(Person.id, Person.boss_id).where(Person.id > 10).order_by(Person.id))
    ).all()
