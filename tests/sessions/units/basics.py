"""Adding, changing and deleting instances."""

from decimal import Decimal
from typing import Any

from sqlalchemy import (
    delete,
    func,
    inspect,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from tests.sessions.shop import Order, Person, Place, Point, Tag
from tests.sessions.units.unit import loaded, unit


@unit("Session Basics / Adding new or existing items")
async def add_and_commit(session: AsyncSession) -> Any:
    dee = Person(id=10, name="dee")
    session.add(dee)
    await session.commit()
    return loaded(dee)


@unit("Session Basics / Adding new or existing items")
async def add_and_flush(session: AsyncSession) -> Any:
    dee = Person(id=10, name="dee")
    session.add(dee)
    await session.flush()
    return [dee.age, inspect(dee).persistent]


@unit("Session Basics / Adding new or existing items")
async def add_and_forget(session: AsyncSession) -> Any:
    session.add(Person(id=10, name="dee"))
    return len(session.new)


@unit("Session Basics / Adding new or existing items")
async def add_without_a_key(session: AsyncSession) -> Any:
    dee = Person(name="dee")
    session.add(dee)
    await session.flush()
    return [isinstance(dee.id, int), dee.name]


@unit("Session Basics / Adding new or existing items")
async def add_all_and_commit(session: AsyncSession) -> Any:
    session.add_all([Person(id=10, name="dee"), Person(id=11, name="eve", age=40), Tag(id=9, name="green")])
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Person))


@unit("Session Basics / Adding new or existing items")
async def add_twice(session: AsyncSession) -> Any:
    dee = Person(id=10, name="dee")
    session.add(dee)
    session.add(dee)
    await session.commit()
    return dee in session


@unit("Session Basics / Adding new or existing items")
async def add_what_is_not_mapped(session: AsyncSession) -> Any:
    session.add(object())


@unit("Session Basics / Adding new or existing items")
async def add_a_taken_key(session: AsyncSession) -> Any:
    session.add(Person(id=1, name="dee"))
    await session.flush()


@unit("Session Basics / Adding new or existing items")
async def add_a_taken_name(session: AsyncSession) -> Any:
    session.add(Person(id=10, name="ann"))
    await session.commit()


@unit("Session Basics / Adding new or existing items")
async def add_without_a_name(session: AsyncSession) -> Any:
    session.add(Person(id=10))
    await session.commit()


@unit("Session Basics / Adding new or existing items")
async def add_values_beside_server_defaults(session: AsyncSession) -> Any:
    order = Order(id=10, title="pi", price=Decimal("3.14"))
    session.add_all([order, Person(id=10, name="dee", city="Oslo")])
    await session.commit()
    return [loaded(order), await session.scalar(select(Person.city).where(Person.id == 10))]


@unit("Session Basics / Adding new or existing items")
async def a_value_that_a_validator_refuses(session: AsyncSession) -> Any:
    session.add(Person(id=10, name="dee", age=-1))


@unit("Session Basics / Updating")
async def change_and_commit(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 31
    await session.commit()
    return loaded(ann)


@unit("Session Basics / Updating")
async def change_and_read_again(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.name = "anna"
    found = await session.scalars(select(Person.name).where(Person.name == "anna"))
    return [found.all(), len(session.dirty)]


@unit("Session Basics / Updating")
async def change_to_the_same(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 30
    return [ann in session.dirty, session.is_modified(ann)]


@unit("Session Basics / Updating")
async def change_by_an_expression(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = Person.age + 1
    await session.flush()
    await session.refresh(ann)
    return ann.age


@unit("Session Basics / Updating")
async def change_a_key(session: AsyncSession) -> Any:
    red = await session.get_one(Tag, 2)
    red.id = 20
    await session.flush()
    return [inspect(red).identity, await session.get(Tag, 2)]


@unit("Session Basics / Updating")
async def change_a_mutable(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.data["b"] = 2
    await session.commit()
    return await session.scalar(select(Person.data).where(Person.id == 1))


@unit("Session Basics / Updating")
async def change_a_composite(session: AsyncSession) -> Any:
    place = await session.get_one(Place, ("it", 1))
    place.point = Point(8, 9)
    await session.commit()
    return await session.scalar(select(Place.x).where(Place.country == "it"))


@unit("Session Basics / Updating")
async def change_an_enum(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.mood = None
    await session.commit()
    return await session.scalar(select(Person.mood).where(Person.id == 1))


@unit("Session Basics / Updating")
async def change_and_forget(session: AsyncSession) -> Any:
    (await session.get_one(Person, 1)).age = 31
    return len(session.dirty)


@unit("Session Basics / Updating")
async def no_autoflush(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 31
    with session.no_autoflush:
        return await session.scalar(select(Person.age).where(Person.id == 1))


@unit("Session Basics / Deleting")
async def delete_and_commit(session: AsyncSession) -> Any:
    order = await session.get_one(Order, 3)
    await session.delete(order)
    await session.commit()
    return [inspect(order).detached, order in session]


@unit("Session Basics / Deleting")
async def delete_and_flush(session: AsyncSession) -> Any:
    order = await session.get_one(Order, 3)
    await session.delete(order)
    await session.flush()
    return [inspect(order).deleted, await session.get(Order, 3)]


@unit("Session Basics / Deleting")
async def delete_and_forget(session: AsyncSession) -> Any:
    await session.delete(await session.get_one(Order, 3))
    return len(session.deleted)


@unit("Session Basics / Deleting")
async def delete_and_roll_back(session: AsyncSession) -> Any:
    order = await session.get_one(Order, 3)
    await session.delete(order)
    await session.flush()
    await session.rollback()
    return order in session


@unit("Session Basics / Deleting")
async def delete_with_its_collection(session: AsyncSession) -> Any:
    await session.delete(await session.get_one(Person, 2))
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Order))


@unit("Session Basics / Deleting")
async def delete_what_others_refer_to(session: AsyncSession) -> Any:
    await session.execute(delete(Person).where(Person.id == 1))


@unit("Session Basics / Deleting")
async def delete_what_was_never_added(session: AsyncSession) -> Any:
    await session.delete(Person(id=1, name="ann"))


@unit("Session Basics / Deleting")
async def delete_and_add_again(session: AsyncSession) -> Any:
    order = await session.get_one(Order, 3)
    await session.delete(order)
    session.add(order)
    await session.commit()
    return order in session


@unit("Session Basics / Deleting")
async def replace_by_the_same_key(session: AsyncSession) -> Any:
    await session.delete(await session.get_one(Tag, 2))
    session.add(Tag(id=2, name="blue"))
    await session.commit()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()


@unit("Session Basics / Deleting")
async def a_row_that_somebody_else_deleted(session: AsyncSession) -> Any:
    order = await session.get_one(Order, 3)
    await session.execute(delete(Order).where(Order.id == 3).execution_options(synchronize_session=False))
    order.title = "changed"
    await session.flush()


@unit("Session Basics / Deleting")
async def refresh_a_row_that_is_gone(session: AsyncSession) -> Any:
    order = await session.get_one(Order, 3)
    await session.execute(delete(Order).where(Order.id == 3).execution_options(synchronize_session=False))
    await session.refresh(order)


@unit("Session Basics / Adding new or existing items")
async def add_an_enum_as_text(session: AsyncSession) -> Any:
    dee = Person(id=10, name="dee", mood="GOOD")
    session.add(dee)
    await session.commit()
    return [dee.mood, await session.scalar(select(Person.mood).where(Person.id == 10))]


@unit("Session Basics / Adding new or existing items")
async def add_a_number_as_text(session: AsyncSession) -> Any:
    dee = Person(id="10", name="dee", age="30")
    session.add(dee)
    await session.commit()
    return [dee.id, dee.age, await session.scalar(select(Person.age).where(Person.id == 10))]


@unit("Session Basics / Adding new or existing items")
async def add_to_a_schema_of_a_tenant(session: AsyncSession) -> Any:
    await session.connection(execution_options={"schema_translate_map": {None: "no_tenant"}})
    session.add(Tag(id=10, name="green"))
    await session.flush()


@unit("Session Basics / Querying")
async def read_from_a_schema_of_a_tenant(session: AsyncSession) -> Any:
    options = {"schema_translate_map": {None: "no_tenant"}}
    try:
        await session.scalars(select(Tag).execution_options(**options))
    except Exception as error:
        seen = [type(error).__name__, "no_tenant" in str(error)]
    await session.rollback()
    return [seen, (await session.scalars(select(Tag.name).order_by(Tag.id))).all()]
