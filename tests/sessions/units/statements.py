"""INSERT, UPDATE and DELETE for many rows; version counters, inheritance, defaults; attributes of the session."""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateTable, DropTable

from tests.conftest import table_of
from tests.sessions.shop import Bike, Car, Order, Person, Tag, Vehicle
from tests.sessions.units.unit import family, loaded, then, unit

NEW = [{"id": 10, "name": "green"}, {"id": 11, "name": "grey"}]
SYNCS = [("auto", "auto"), ("evaluate", "evaluate"), ("fetch", "fetch"), ("none", False)]


async def update_many(session: AsyncSession, how: Any) -> Any:
    ann = await session.get_one(Person, 1)
    found = await session.execute(
        update(Person).where(Person.age > 20).values(age=99).execution_options(synchronize_session=how)
    )
    await session.commit()
    return [found.rowcount, ann.age]  # type: ignore[attr-defined]


async def delete_many(session: AsyncSession, how: Any) -> Any:
    cup = await session.get_one(Order, 3)
    found = await session.execute(
        delete(Order).where(Order.title == "cup").execution_options(synchronize_session=how)
    )
    return [found.rowcount, cup in session, len(session.deleted)]  # type: ignore[attr-defined]


async def insert_many(session: AsyncSession, make: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    seen = await make(session)
    await session.commit()
    return [seen, (await session.execute(select(Tag.id, Tag.name).order_by(Tag.id))).all()]


family("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE", "update", update_many, *SYNCS)
family("ORM-Enabled INSERT, UPDATE and DELETE / DELETE", "delete", delete_many, *SYNCS)
family(
    "ORM-Enabled INSERT, UPDATE and DELETE / INSERT", "insert", insert_many,
    ("values", lambda s: then(s.execute(insert(Tag).values(id=10, name="green")), lambda found: found.rowcount)),
    ("parameters", lambda s: then(s.execute(insert(Tag), NEW[0]), lambda _found: None)),
    ("bulk", lambda s: then(s.execute(insert(Tag), NEW), lambda _found: None)),
    ("many values", lambda s: then(s.execute(insert(Tag).values(NEW)), lambda found: found.rowcount)),
    ("the table", lambda s: then(s.execute(insert(table_of(Tag)).values(NEW[0])), lambda found: found.rowcount)),
    ("from a select", lambda s: then(
        s.execute(insert(Tag).from_select(["id", "name"], select(Person.id + 20, Person.name))),
        lambda found: found.rowcount)),
    ("text", lambda s: then(
        s.execute(text("INSERT INTO like_tags (id, name) VALUES (:id, :name)"), NEW), lambda found: found.rowcount)),
    ("a taken name", lambda s: then(s.execute(insert(Tag).values(id=10, name="red")), lambda _found: None)),
    ("a column that is not there", lambda s: then(s.execute(insert(Tag).values(nothing=1)), lambda _found: None)),
)  # fmt: skip


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_by_keys(session: AsyncSession) -> Any:
    await session.execute(update(Person), [{"id": 1, "age": 40}, {"id": 2, "age": 41}])
    await session.commit()
    return (await session.execute(select(Person.id, Person.age).order_by(Person.id))).all()


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_by_a_subquery(session: AsyncSession) -> Any:
    count = select(func.count(Order.id)).where(Order.person_id == Person.id).scalar_subquery()
    await session.execute(update(Person).values(age=count).execution_options(synchronize_session=False))
    await session.commit()
    return (await session.execute(select(Person.id, Person.age).order_by(Person.id))).all()


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_the_pending_first(session: AsyncSession) -> Any:
    session.add(Person(id=10, name="dee", age=70))
    found = await session.execute(update(Person).where(Person.age > 60).values(age=60))
    await session.commit()
    return found.rowcount  # type: ignore[attr-defined]


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_by_text_and_forget(session: AsyncSession) -> Any:
    await session.execute(text("UPDATE like_people SET age = 1"))
    return await session.scalar(select(func.sum(Person.age)))


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_joined_inheritance(session: AsyncSession) -> Any:
    await session.execute(update(Vehicle).where(Vehicle.id == 1).values(wheels=3))
    await session.commit()
    return (await session.scalars(select(Vehicle.wheels).order_by(Vehicle.id))).all()


@unit("ORM-Enabled INSERT, UPDATE and DELETE / Legacy bulk operations")
async def bulk_save_objects(session: AsyncSession) -> Any:
    await session.run_sync(lambda inside: inside.bulk_save_objects([Tag(**one) for one in NEW]))
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Tag))


@unit("ORM-Enabled INSERT, UPDATE and DELETE / Legacy bulk operations")
async def bulk_insert_mappings(session: AsyncSession) -> Any:
    await session.run_sync(lambda inside: inside.bulk_insert_mappings(Tag, NEW))
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Tag))


@unit("ORM-Enabled INSERT, UPDATE and DELETE / Legacy bulk operations")
async def bulk_update_mappings(session: AsyncSession) -> Any:
    await session.run_sync(lambda inside: inside.bulk_update_mappings(Tag, [{"id": 1, "name": "crimson"}]))
    await session.commit()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()


@unit("Configuring a version counter")
async def versions_count(session: AsyncSession) -> Any:
    pen = await session.get_one(Order, 1)
    pen.title = "pencil"
    await session.flush()
    first = pen.version
    pen.title = "crayon"
    await session.commit()
    return [first, pen.version]


@unit("Configuring a version counter")
async def a_version_that_lost(session: AsyncSession) -> Any:
    pen = await session.get_one(Order, 1)
    await session.execute(text("UPDATE like_orders SET version = 9 WHERE id = 1"))
    pen.title = "pencil"
    await session.flush()


@unit("Configuring a version counter")
async def delete_a_version_that_lost(session: AsyncSession) -> Any:
    cup = await session.get_one(Order, 3)
    await session.execute(text("UPDATE like_orders SET version = 9 WHERE id = 3"))
    await session.delete(cup)
    await session.flush()


@unit("Mapping class inheritance hierarchies")
async def add_subclasses(session: AsyncSession) -> Any:
    session.add_all([Car(id=10, doors=5), Bike(id=11, wheels=2), Vehicle(id=12)])
    await session.commit()
    return (
        await session.execute(select(Vehicle.id, Vehicle.kind, Vehicle.wheels).order_by(Vehicle.id))
    ).all()


@unit("Mapping class inheritance hierarchies")
async def change_a_subclass(session: AsyncSession) -> Any:
    car = await session.get_one(Car, 1)
    car.doors, car.wheels = 5, 3
    await session.commit()
    return loaded(car)


@unit("Mapping class inheritance hierarchies")
async def delete_a_subclass(session: AsyncSession) -> Any:
    await session.delete(await session.get_one(Vehicle, 2))
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Vehicle))


@unit("Column INSERT/UPDATE defaults")
async def defaults_after_a_flush(session: AsyncSession) -> Any:
    dee = Person(id=10, name="dee")
    session.add(dee)
    await session.flush()
    await session.refresh(dee)
    return loaded(dee)


@unit("Column INSERT/UPDATE defaults")
async def null_in_place_of_a_default(session: AsyncSession) -> Any:
    session.add(Person(id=10, name="dee", city=None))
    await session.commit()
    return await session.scalar(select(Person.city).where(Person.id == 10))


@unit("Session API")
async def info_is_kept(session: AsyncSession) -> Any:
    session.info["mine"] = 1
    await session.get(Person, 1)
    await session.rollback()
    return session.info["mine"]


@unit("Session API")
async def info_may_be_cleared(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.flush()
    session.info.clear()
    await session.commit()
    return await session.get(Tag, 10) is not None


@unit("Session API")
async def flush_with_nothing(session: AsyncSession) -> Any:
    await session.flush()
    return session.in_transaction()


@unit("Session API")
async def is_active_as_ever(session: AsyncSession) -> Any:
    return [session.is_active, session.autoflush]


@unit("Session API")
async def an_identity_key(session: AsyncSession) -> Any:
    return str(session.identity_key(Person, 1)[1:])


@unit("Session API")
async def the_bind(session: AsyncSession) -> Any:
    return session.get_bind().dialect.name


@unit("Session API")
async def the_bind_as_an_attribute(session: AsyncSession) -> Any:
    before = session.bind.dialect.name
    inside = session.sync_session.bind
    return [before, inside is session.bind.sync_engine]


@unit("Session API")
async def functions_without_a_select(session: AsyncSession) -> Any:
    found = await session.execute(func.abs(-2))
    return [await session.scalar(func.abs(-1)), found.scalar()]


@unit("Session API")
async def a_temporary_table(session: AsyncSession) -> Any:
    await session.execute(text("CREATE TEMPORARY TABLE like_temporary (id INT)"))
    await session.execute(text("INSERT INTO like_temporary VALUES (1), (2)"))
    found = (await session.scalars(text("SELECT id FROM like_temporary ORDER BY id"))).all()
    await session.execute(text("DROP TABLE like_temporary"))
    await session.commit()
    return found


@unit("Session API")
async def a_table_of_ones_own(session: AsyncSession) -> Any:
    table = Table("like_ours", MetaData(), Column("id", Integer), mysql_engine="InnoDB")
    try:
        await session.execute(CreateTable(table))
        await session.execute(insert(table), [{"id": 1}, {"id": 2}])
        found = (await session.scalars(select(table.c.id).order_by(table.c.id))).all()
        await session.commit()
        await session.execute(text("TRUNCATE TABLE like_ours") if mysql(session) else delete(table))
        return [found, await session.scalar(select(func.count()).select_from(table))]
    finally:
        await session.execute(DropTable(table))
        await session.commit()


def mysql(session: AsyncSession) -> bool:
    return session.get_bind().dialect.name == "mysql"


@unit("Session API")
async def a_definition_after_a_write(session: AsyncSession) -> Any:
    await session.execute(update(Person).where(Person.id == 1).values(age=99))
    await session.execute(text("CREATE TABLE like_ours (id INT)"))
    await session.execute(text("DROP TABLE like_ours"))
    await session.commit()
    return await session.scalar(select(Person.age).where(Person.id == 1))
