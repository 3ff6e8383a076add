"""Commits, rollbacks, SAVEPOINTs, and what follows a failure."""

from typing import Any

from sqlalchemy import (
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession

from tests.sessions.shop import Person, Tag
from tests.sessions.units.unit import loaded, unit


@unit("Transactions / Managing transactions")
async def commit_with_nothing(session: AsyncSession) -> Any:
    await session.commit()
    return session.in_transaction()


@unit("Transactions / Managing transactions")
async def rollback_with_nothing(session: AsyncSession) -> Any:
    await session.rollback()
    return session.in_transaction()


@unit("Transactions / Managing transactions")
async def rollback_forgets(session: AsyncSession) -> Any:
    dee = Person(id=10, name="dee")
    session.add(dee)
    await session.flush()
    await session.rollback()
    return [inspect(dee).transient, await session.get(Person, 10)]


@unit("Transactions / Managing transactions")
async def rollback_expires(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 31
    await session.rollback()
    return [loaded(ann), await session.run_sync(lambda _inside: ann.age)]


@unit("Transactions / Managing transactions")
async def two_transactions(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.commit()
    session.add(Tag(id=11, name="grey"))
    await session.rollback()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()


@unit("Transactions / Managing transactions")
async def begin_as_a_block(session: AsyncSession) -> Any:
    async with session.begin():
        session.add(Tag(id=10, name="green"))
    return session.in_transaction()


@unit("Transactions / Managing transactions")
async def begin_as_a_block_that_fails(session: AsyncSession) -> Any:
    try:
        async with session.begin():
            session.add(Tag(id=10, name="green"))
            await session.flush()
            int("broken off")
    except ValueError:
        return [session.in_transaction(), await session.get(Tag, 10)]


@unit("Transactions / Managing transactions")
async def begin_twice(session: AsyncSession) -> Any:
    await session.begin()
    await session.begin()


@unit("Transactions / Managing transactions")
async def begin_after_a_read(session: AsyncSession) -> Any:
    await session.get(Person, 1)
    await session.begin()


@unit("Transactions / Managing transactions")
async def get_transaction(session: AsyncSession) -> Any:
    before = session.get_transaction()
    await session.get(Person, 1)
    return [before, session.get_transaction() is not None, session.in_nested_transaction()]


@unit("Transactions / Using SAVEPOINT")
async def a_savepoint_that_is_released(session: AsyncSession) -> Any:
    async with session.begin_nested():
        session.add(Tag(id=10, name="green"))
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Tag))


@unit("Transactions / Using SAVEPOINT")
async def a_savepoint_that_is_rolled_back(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    nested = await session.begin_nested()
    session.add(Tag(id=11, name="grey"))
    await session.flush()
    await nested.rollback()
    await session.commit()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()


@unit("Transactions / Using SAVEPOINT")
async def a_savepoint_for_what_is_taken(session: AsyncSession) -> Any:
    seen = []
    for number, name in enumerate(["red", "green", "blue", "grey"], 10):
        try:
            async with session.begin_nested():
                session.add(Tag(id=number, name=name))
        except Exception as error:
            seen.append(type(error).__name__)
    await session.commit()
    return [seen, (await session.scalars(select(Tag.name).order_by(Tag.id))).all()]


@unit("Transactions / Using SAVEPOINT")
async def savepoints_in_savepoints(session: AsyncSession) -> Any:
    async with session.begin_nested():
        session.add(Tag(id=10, name="green"))
        inner = await session.begin_nested()
        session.add(Tag(id=11, name="grey"))
        await inner.rollback()
        session.add(Tag(id=12, name="pink"))
    await session.commit()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()


@unit("Transactions / Using SAVEPOINT")
async def an_instance_changed_around_a_savepoint(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 31
    nested = await session.begin_nested()
    ann.age = 32
    await session.flush()
    await nested.rollback()
    await session.refresh(ann)
    await session.commit()
    return ann.age


@unit("Transactions / Using SAVEPOINT")
async def commit_inside_of_a_savepoint(session: AsyncSession) -> Any:
    await session.begin_nested()
    session.add(Tag(id=10, name="green"))
    await session.commit()
    return [session.in_transaction(), await session.get(Tag, 10)]


@unit("Transactions / Using SAVEPOINT")
async def rollback_inside_of_a_savepoint(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.begin_nested()
    session.add(Tag(id=11, name="grey"))
    await session.rollback()
    return [session.in_transaction(), await session.get(Tag, 10)]


@unit("Transactions / After a flush that failed")
async def work_after_a_failed_flush(session: AsyncSession) -> Any:
    session.add(Tag(id=1, name="again"))
    try:
        await session.flush()
    except Exception:
        await session.get(Person, 1)


@unit("Transactions / After a flush that failed")
async def commit_after_a_failed_flush(session: AsyncSession) -> Any:
    session.add(Tag(id=1, name="again"))
    try:
        await session.flush()
    except Exception:
        await session.commit()


@unit("Transactions / After a flush that failed")
async def go_on_after_a_rollback(session: AsyncSession) -> Any:
    session.add(Tag(id=1, name="again"))
    try:
        await session.flush()
    except Exception:
        await session.rollback()
    session.add(Tag(id=10, name="green"))
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Tag))


@unit("Transactions / After a flush that failed")
async def a_statement_that_failed(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    try:
        await session.execute(text("SELECT nothing FROM nowhere_at_all"))
    except Exception as error:
        return type(error).__name__
    return None


@unit("Transactions / Managing transactions")
async def begin_after_an_add(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.begin()


@unit("Transactions / Managing transactions")
async def begin_after_a_change(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 31
    await session.begin()


@unit("Transactions / Managing transactions")
async def an_add_begins(session: AsyncSession) -> Any:
    before = session.in_transaction()
    session.add(Tag(id=10, name="green"))
    return [before, session.in_transaction()]


@unit("Transactions / Managing transactions")
async def an_add_and_a_read(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.get(Person, 1)
    seen = session.in_transaction()
    await session.rollback()
    return [seen, len(session.new)]
