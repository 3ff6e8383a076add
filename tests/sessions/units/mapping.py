"""Large collections, hybrids, composites, inheritance, and the other kinds of attributes."""

from typing import Any

from sqlalchemy import func, inspect, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    aliased,
    defaultload,
    joinedload,
    noload,
    selectin_polymorphic,
    selectinload,
    undefer,
    with_expression,
    with_polymorphic,
)

from tests.sessions.library import Author, Book, Chapter, Head, Librarian, Note, Staff
from tests.sessions.shop import Car, Order, Person, Place, Point, Vehicle
from tests.sessions.units.unit import loaded, unit

# ---------------------------------------------------------------------- large collections


@unit("Working with Large Collections / Write only")
async def add_to_a_write_only_collection(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    eco.books.add(Book(id=10, title="baudolino"))
    eco.books.add_all([Book(id=11, title="prague"), Book(id=12, title="zero")])
    await session.commit()
    return (await session.scalars(eco.books.select())).all()


@unit("Working with Large Collections / Write only")
async def select_of_a_write_only_collection(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    return (await session.scalars(eco.books.select().where(Book.pages > 100).limit(5))).all()


@unit("Working with Large Collections / Write only")
async def remove_from_a_write_only_collection(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    eco.books.remove((await session.scalars(eco.books.select())).first())  # type: ignore[arg-type]
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Book))


@unit("Working with Large Collections / Write only")
async def insert_into_a_write_only_collection(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    await session.execute(
        eco.books.insert(),
        [{"id": n, "title": f"b{n}", "changed": 0, "version": "0" * 31 + "1"} for n in (10, 11)],
    )
    await session.commit()


@unit("Working with Large Collections / Write only")
async def update_of_a_write_only_collection(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    await session.execute(eco.books.update().where(Book.pages < 100).values(pages=99))
    await session.commit()
    return (await session.execute(select(Book.id, Book.pages).order_by(Book.id))).all()


@unit("Working with Large Collections / Write only")
async def delete_of_a_write_only_collection(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    rose = await session.get_one(Book, 1)
    await session.execute(eco.books.delete().where(Book.title == "rose"))
    return [rose in session, await session.scalar(select(func.count()).select_from(Book))]


@unit("Working with Large Collections / Write only")
async def replace_a_write_only_collection(session: AsyncSession) -> Any:
    session.add(Author(id=10, first="A", last="B", books=[Book(id=10, title="new")]))
    await session.commit()
    eco = await session.get_one(Author, 1)
    eco.books = [Book(id=11, title="only")]


@unit("Working with Large Collections / Passive deletes")
async def delete_with_passive_deletes(session: AsyncSession) -> Any:
    await session.delete(await session.get_one(Author, 1))
    await session.commit()
    return (await session.scalars(select(Book.id))).all()


@unit("Working with Large Collections / Dynamic")
async def a_dynamic_collection_in_run_sync(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    return await session.run_sync(
        lambda _inside: [eco.shelf.count(), eco.shelf.filter(Book.pages > 100).all(), list(eco.shelf)]
    )


# ---------------------------------------------------------------------- collections and relations


@unit("Collection Customization and API Details")
async def a_dictionary_of_rows(session: AsyncSession) -> Any:
    island = await session.get_one(Book, 2, options=[selectinload(Book.notes)])
    island.notes["sun"] = Note(word="sun", said="hot")
    del island.notes["sea"]
    await session.commit()
    return sorted(island.notes)


@unit("Collection Customization and API Details")
async def a_dictionary_through_a_proxy(session: AsyncSession) -> Any:
    island = await session.get_one(Book, 2, options=[selectinload(Book.notes)])
    island.said["sun"] = "hot"
    island.said["sea"] = "grey"
    await session.commit()
    return dict(island.said)


@unit("Collection Customization and API Details")
async def a_list_in_order(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1, options=[selectinload(Book.chapters)])
    rose.chapters.insert(1, Chapter(id=10, title="between"))
    rose.chapters.pop(0)
    await session.commit()
    return (await session.execute(select(Chapter.id, Chapter.position).order_by(Chapter.id))).all()


@unit("Relationship configuration / viewonly")
async def a_relation_that_is_only_read(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1, options=[selectinload(Author.long_books)])
    before = [one.title for one in eco.long_books]
    eco.books.add(Book(id=10, title="long", pages=900))
    await session.flush()
    stale = len(eco.long_books)
    await session.refresh(eco, ["long_books"])
    return [before, stale, [one.title for one in eco.long_books]]


@unit("Relationship configuration / viewonly")
async def a_write_to_a_relation_that_is_only_read(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1, options=[joinedload(Author.long_books)])
    eco.long_books.append(Book(id=10, title="dropped", pages=900))
    await session.commit()
    return await session.get(Book, 10)


# ---------------------------------------------------------------------- attributes


@unit("SQL Expressions as Mapped Attributes / column_property")
async def a_property_of_a_subquery(session: AsyncSession) -> Any:
    found = await session.scalars(select(Author).options(undefer(Author.book_count)).order_by(Author.id))  # type: ignore[attr-defined]
    return [(one, one.book_count) for one in found]  # type: ignore[attr-defined]


@unit("SQL Expressions as Mapped Attributes / column_property")
async def a_property_after_a_change(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 40
    await session.flush()
    return loaded(ann)


@unit("SQL Expressions as Mapped Attributes / column_property")
async def a_property_is_refreshed(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 40
    await session.flush()
    await session.refresh(ann, ["doubled"])
    return loaded(ann)


@unit("SQL Expressions as Mapped Attributes / query_expression")
async def an_expression_of_the_query(session: AsyncSession) -> Any:
    statement = select(Author).options(with_expression(Author.guess, literal(5) + Author.id))
    first = (await session.scalars(statement.order_by(Author.id))).first()
    return loaded(first)


@unit("SQL Expressions as Mapped Attributes / hybrids")
async def a_hybrid_that_is_assigned(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    eco.full = "U. E."
    await session.commit()
    return [eco.first, eco.last, eco.full]


@unit("SQL Expressions as Mapped Attributes / hybrids")
async def a_hybrid_that_is_updated(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    await session.execute(update(Author).where(Author.id == 1).values({Author.full: "U. E."}))
    await session.commit()
    return [eco.first, eco.last]


@unit("SQL Expressions as Mapped Attributes / hybrids")
async def a_hybrid_method_in_a_query(session: AsyncSession) -> Any:
    found = await session.scalars(select(Author).where(Author.is_longer_than(4)))
    return [(one, one.is_longer_than(4)) for one in found]


@unit("Changing Attribute Behavior / synonym")
async def a_synonym(session: AsyncSession) -> Any:
    eco = (await session.scalars(select(Author).where(Author.called == "Umberto"))).one()
    eco.called = "U."
    await session.commit()
    return eco.first


@unit("Composite Column Types")
async def a_composite_by_its_columns(session: AsyncSession) -> Any:
    place = await session.get_one(Place, ("it", 1))
    place.x = 9
    await session.flush()
    await session.refresh(place)
    return place.point


@unit("Composite Column Types")
async def a_composite_that_is_updated(session: AsyncSession) -> Any:
    place = await session.get_one(Place, ("it", 1))
    await session.execute(
        update(Place).where(Place.code == 1, Place.country == "it").values({Place.point: Point(7, 7)})
    )
    await session.commit()
    return [place.x, place.y]


@unit("Composite Column Types")
async def a_composite_after_a_rollback(session: AsyncSession) -> Any:
    place = await session.get_one(Place, ("it", 1))
    place.point = Point(7, 7)
    await session.flush()
    await session.rollback()
    await session.refresh(place)
    return place.point


@unit("Composite Column Types")
async def a_composite_that_is_selected(session: AsyncSession) -> Any:
    return (await session.execute(select(Place.point, Place.code).order_by(Place.country))).all()


@unit("Attribute history")
async def the_history_of_an_attribute(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 31
    history = inspect(ann).attrs.age.history
    await session.flush()
    return [list(history.added), list(history.deleted or ()), bool(inspect(ann).attrs.age.history.added)]


# ---------------------------------------------------------------------- inheritance


@unit("Writing SELECT statements for Inheritance Mappings")
async def three_classes_in_one_table(session: AsyncSession) -> Any:
    found = (await session.scalars(select(Staff).order_by(Staff.id))).all()
    return [(one, loaded(one)) for one in found]


@unit("Writing SELECT statements for Inheritance Mappings")
async def a_subclass_of_a_subclass(session: AsyncSession) -> Any:
    return [(await session.scalars(select(kind))).all() for kind in (Librarian, Head)]


@unit("Writing SELECT statements for Inheritance Mappings")
async def columns_of_a_subclass_by_a_second_select(session: AsyncSession) -> Any:
    options = selectin_polymorphic(Staff, [Librarian])
    found = await session.scalars(select(Staff).options(options).order_by(Staff.id))
    return [(one, loaded(one)) for one in found]


@unit("Writing SELECT statements for Inheritance Mappings")
async def a_polymorphic_alias(session: AsyncSession) -> Any:
    both = with_polymorphic(Vehicle, [Car], aliased=True)
    found = await session.scalars(select(both).where(both.Car.doors == 3))
    return found.all()


@unit("Writing SELECT statements for Inheritance Mappings")
async def refresh_a_subclass_of_a_joined_table(session: AsyncSession) -> Any:
    car = (await session.scalars(select(Vehicle).where(Vehicle.id == 1))).one()
    unloaded = sorted(inspect(car).unloaded)
    await session.refresh(car)
    return [unloaded, loaded(car)]


@unit("Writing SELECT statements for Inheritance Mappings")
async def update_the_table_of_a_subclass(session: AsyncSession) -> Any:
    await session.execute(update(Librarian).where(Librarian.desk == "left").values(desk="right"))
    await session.commit()
    return (await session.scalars(select(Librarian.desk))).all()


@unit("Writing SELECT statements for Inheritance Mappings")
async def change_the_class_of_a_row(session: AsyncSession) -> Any:
    staff = await session.get_one(Staff, 1)
    staff.kind = "head"
    await session.commit()
    session.expunge_all()
    return await session.get(Staff, 1)


@unit("Writing SELECT statements for Inheritance Mappings")
async def get_of_a_base_and_a_subclass(session: AsyncSession) -> Any:
    head = await session.get_one(Staff, 3)
    return [head is await session.get(Librarian, 3), await session.get(Head, 2), type(head).__name__]


# ---------------------------------------------------------------------- loading


@unit("ORM Querying Guide / Relationship loading")
async def nothing_is_loaded(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1, options=[noload(Person.orders)])
    return ann.orders


@unit("ORM Querying Guide / Relationship loading")
async def options_below_what_is_loaded(session: AsyncSession) -> Any:
    options = [selectinload(Person.orders), defaultload(Person.orders).defer(Order.price)]
    ann = await session.get_one(Person, 1, options=options)
    return [loaded(one) for one in ann.orders]


@unit("ORM Querying Guide / Relationship loading")
async def load_of_an_alias(session: AsyncSession) -> Any:
    boss = aliased(Person)
    statement = select(boss).options(selectinload(boss.staff)).where(boss.id == 1)
    return [loaded(one) for one in await session.scalars(statement)]


@unit("ORM Querying Guide / Relationship loading")
async def load_for_what_is_there_already(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    found = (
        await session.scalars(select(Person).options(selectinload(Person.orders)).order_by(Person.id))
    ).all()
    return [found[0] is ann, loaded(ann)]


@unit("ORM Querying Guide / Relationship loading")
async def load_of_a_changed_collection(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1, options=[selectinload(Person.orders)])
    ann.orders.append(Order(id=10, title="hat"))
    await session.scalars(select(Person).options(selectinload(Person.orders)).order_by(Person.id))
    return [one.title for one in ann.orders]
