"""The states of instances: merging, expunging, refreshing, closing."""

from typing import Any

from sqlalchemy import (
    func,
    inspect,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    make_transient,
    object_session,
    selectinload,
)

from tests.sessions.shop import PEOPLE, Order, Person, Tag
from tests.sessions.units.unit import loaded, unit


@unit("State Management / Quick intro to object states")
async def the_states_of_an_instance(session: AsyncSession) -> Any:
    dee = Person(id=10, name="dee")
    seen = [states(dee)]
    session.add(dee)
    seen.append(states(dee))
    await session.flush()
    seen.append(states(dee))
    await session.delete(dee)
    await session.flush()
    seen.append(states(dee))
    await session.commit()
    return [*seen, states(dee)]


def states(instance: Any) -> list[str]:
    state = inspect(instance)
    return [
        name for name in ("transient", "pending", "persistent", "deleted", "detached") if getattr(state, name)
    ]


@unit("State Management / Session attributes")
async def what_a_session_holds(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 5
    session.add(Tag(id=10, name="green"))
    await session.delete(await session.get_one(Order, 3))
    return [len(session.new), len(session.dirty), len(session.deleted), len(list(session)), ann in session]


@unit("State Management / Session attributes")
async def the_identity_map(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    again = (await session.scalars(select(Person).where(Person.name == "ann"))).one()
    keys = list(session.identity_map)  # type: ignore[call-overload]  # it has no type of its own
    return [ann is again, sorted(str(key[1]) for key in keys)]


@unit("State Management / Merging")
async def merge_what_exists(session: AsyncSession) -> Any:
    merged = await session.merge(Person(id=1, name="anna", age=33))
    await session.commit()
    return loaded(merged)


@unit("State Management / Merging")
async def merge_what_is_new(session: AsyncSession) -> Any:
    merged = await session.merge(Person(id=10, name="dee"))
    await session.commit()
    return [merged.name, merged.age]


@unit("State Management / Merging")
async def merge_without_loading(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.expunge(ann)
    merged = await session.merge(ann, load=False)
    return [merged is ann, merged.name]


@unit("State Management / Merging")
async def merge_a_collection(session: AsyncSession) -> Any:
    merged = await session.merge(
        Person(id=2, name="bob", age=17, orders=[Order(id=3, title="mug"), Order(id=10, title="hat")]),
        options=[selectinload(Person.orders)],
    )
    await session.commit()
    return [(one.id, one.title) for one in merged.orders]


@unit("State Management / Merging")
async def merge_all_of_some(session: AsyncSession) -> Any:
    merged = await session.merge_all([Tag(id=1, name="crimson"), Tag(id=10, name="green")])
    await session.commit()
    return [one.name for one in merged]


@unit("State Management / Expunging")
async def expunge_one(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.expunge(ann)
    ann.age = 99
    await session.commit()
    return [states(ann), await session.scalar(select(Person.age).where(Person.id == 1))]


@unit("State Management / Expunging")
async def expunge_all_of_them(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.add(Tag(id=10, name="green"))
    session.expunge_all()
    await session.commit()
    return [states(ann), await session.get(Tag, 10)]


@unit("State Management / Expunging")
async def expunge_what_is_not_in_it(session: AsyncSession) -> Any:
    session.expunge(Person(id=1, name="ann"))


@unit("State Management / Refreshing and expiring")
async def expire_and_refresh(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.expire(ann)
    empty = loaded(ann)
    await session.refresh(ann)
    return [empty, loaded(ann)]


@unit("State Management / Refreshing and expiring")
async def expire_one_attribute(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.expire(ann, ["age"])
    return sorted(loaded(ann))


@unit("State Management / Refreshing and expiring")
async def expire_all_of_them(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.expire_all()
    found = (await session.scalars(PEOPLE)).all()
    return [found[0] is ann, loaded(ann)]


@unit("State Management / Refreshing and expiring")
async def expiring_forgets_changes(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 99
    session.expire(ann)
    await session.commit()
    return await session.scalar(select(Person.age).where(Person.id == 1))


@unit("State Management / Refreshing and expiring")
async def refresh_for_update(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    await session.refresh(ann, with_for_update=True)
    return ann.age


@unit("State Management / Refreshing and expiring")
async def refresh_what_is_not_in_it(session: AsyncSession) -> Any:
    await session.refresh(Person(id=1, name="ann"))


@unit("State Management / Refreshing and expiring")
async def populate_existing(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    await session.execute(update(Person).values(age=1).execution_options(synchronize_session=False))
    before = ann.age
    await session.scalars(PEOPLE.execution_options(populate_existing=True))
    return [before, ann.age]


@unit("State Management / Closing")
async def close_and_go_on(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.add(Tag(id=10, name="green"))
    await session.close()
    return [states(ann), len(session.new), await session.scalar(select(func.count()).select_from(Tag))]


@unit("State Management / Closing")
async def reset_and_go_on(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 99
    await session.reset()
    return [states(ann), await session.scalar(select(Person.age).where(Person.id == 1))]


@unit("State Management / Closing")
async def invalidate_and_go_on(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.flush()
    await session.invalidate()
    return await session.scalar(select(func.count()).select_from(Tag))


@unit("State Management / Session of an object")
async def the_session_of_an_object(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    return [object_session(ann) is session.sync_session, object_session(Person()) is None]


@unit("State Management / make_transient")
async def copy_a_row(session: AsyncSession) -> Any:
    order = await session.get_one(Order, 3)
    make_transient(order)
    order.id, order.title = 10, "copy"
    session.add(order)
    await session.commit()
    return (await session.scalars(select(Order.title).order_by(Order.id))).all()
