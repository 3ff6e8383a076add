"""INSERT … RETURNING, UPSERT, values of the server, versions, keys, locks and two-phase transactions."""

import pickle
from typing import Any

from sqlalchemy import bindparam, delete, event, exists, func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_object_session, async_session
from sqlalchemy.orm import (
    Session,
    joinedload,
    make_transient_to_detached,
    selectinload,
    was_deleted,
    with_parent,
)
from sqlalchemy.orm.attributes import flag_modified, set_committed_value

from tests.sessions.library import Author, Book, Chapter
from tests.sessions.shop import PEOPLE, Order, Person, Place, Point, Tag, Vehicle
from tests.sessions.units.unit import loaded, unit

NEW = [{"id": 10, "name": "green"}, {"id": 11, "name": "grey"}]
INSERTS = "ORM-Enabled INSERT, UPDATE and DELETE / INSERT"

# ---------------------------------------------------------------------- INSERT


@unit(INSERTS)
async def insert_and_return_entities(session: AsyncSession) -> Any:
    found = (await session.scalars(insert(Tag).returning(Tag), NEW)).all()
    await session.commit()
    return [found, [one in session for one in found]]


@unit(INSERTS)
async def insert_and_return_columns(session: AsyncSession) -> Any:
    found = await session.execute(insert(Tag).returning(Tag.id, Tag.name), NEW)
    return found.all()


@unit(INSERTS)
async def insert_and_return_in_order(session: AsyncSession) -> Any:
    found = await session.scalars(insert(Tag).returning(Tag.name, sort_by_parameter_order=True), NEW[::-1])
    await session.commit()
    return found.all()


@unit(INSERTS)
async def insert_and_return_one(session: AsyncSession) -> Any:
    found = await session.scalar(insert(Tag).values(id=10, name="green").returning(Tag))
    await session.commit()
    return found


@unit(INSERTS)
async def insert_of_different_columns(session: AsyncSession) -> Any:
    await session.execute(
        insert(Person), [{"id": 10, "name": "dee"}, {"id": 11, "name": "eve", "age": 3, "city": "Oslo"}]
    )
    await session.commit()
    return (await session.execute(select(Person.id, Person.age, Person.city).order_by(Person.id))).all()


@unit(INSERTS)
async def insert_with_an_expression(session: AsyncSession) -> Any:
    oldest = select(func.max(Person.age)).scalar_subquery()
    await session.execute(insert(Tag).values(id=oldest, name=func.upper("green")))
    await session.commit()
    return (await session.execute(select(Tag.id, Tag.name).order_by(Tag.id))).all()


@unit(INSERTS)
async def insert_into_a_joined_table(session: AsyncSession) -> Any:
    await session.execute(insert(Vehicle), [{"id": 10, "wheels": 3}])
    await session.commit()
    return await session.get(Vehicle, 10)


@unit(INSERTS)
async def an_attribute_that_is_an_expression(session: AsyncSession) -> Any:
    dee = Person(id=10, name=func.upper("dee"))
    session.add(dee)
    await session.flush()
    await session.refresh(dee)
    return dee.name


@unit(INSERTS)
async def delete_and_return(session: AsyncSession) -> Any:
    cup = await session.get_one(Order, 3)
    found = (await session.scalars(delete(Order).where(Order.id == 3).returning(Order.title))).all()
    await session.commit()
    return [found, cup in session]


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_by_parameters_of_the_connection(session: AsyncSession) -> Any:
    connection = await session.connection()
    table = Person.__table__
    await connection.execute(
        update(table).where(table.c.id == bindparam("n")).values(age=bindparam("a")),  # type: ignore[arg-type]
        [{"n": 1, "a": 1}, {"n": 2, "a": 2}],
    )
    await session.commit()
    return (await session.scalars(select(Person.age).order_by(Person.id))).all()


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_by_keys_of_what_is_loaded(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    await session.execute(update(Person), [{"id": 1, "age": 77}])
    return [ann.age, await session.scalar(select(Person.age).where(Person.id == 1))]


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_by_keys_that_are_missing(session: AsyncSession) -> Any:
    await session.execute(update(Person), [{"age": 77}])


@unit("ORM-Enabled INSERT, UPDATE and DELETE / UPDATE")
async def update_of_what_exists(session: AsyncSession) -> Any:
    found = await session.execute(
        update(Person).where(exists().where(Order.person_id == Person.id)).values(age=Person.age + 1)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    await session.commit()
    return found.rowcount  # type: ignore[attr-defined]


@unit("ORM-Enabled INSERT, UPDATE and DELETE / DELETE")
async def delete_and_add_in_one_transaction(session: AsyncSession) -> Any:
    await session.execute(delete(Order).where(Order.person_id == 2))
    session.add(Order(id=3, title="cup again", person_id=2))
    await session.commit()
    return (await session.scalars(select(Order.title).order_by(Order.id))).all()


# ---------------------------------------------------------------------- values of the server, versions, keys


@unit("Fetching Server-Generated Defaults")
async def a_default_of_the_server(session: AsyncSession) -> Any:
    book = Book(id=10, title="new")
    session.add(book)
    await session.flush()
    await session.refresh(book, ["pages"])
    return book.pages


@unit("Fetching Server-Generated Defaults")
async def a_value_that_an_update_fetches(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    rose.title = "the rose"
    await session.commit()
    return [rose.changed, sorted(inspect(rose).unloaded)]


@unit("Configuring a version counter")
async def a_version_that_is_a_uuid(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    rose.title = "the rose"
    await session.commit()
    return str(rose.version)


@unit("Configuring a version counter")
async def a_version_of_a_merged_row(session: AsyncSession) -> Any:
    await session.merge(Order(id=1, title="pencil", version=9))
    await session.flush()


@unit("Configuring a version counter")
async def a_version_after_a_rollback(session: AsyncSession) -> Any:
    pen = await session.get_one(Order, 1)
    pen.title = "pencil"
    await session.flush()
    await session.rollback()
    await session.refresh(pen)
    pen.title = "crayon"
    await session.commit()
    return pen.version


@unit("Session Basics / Updating")
async def change_of_two_keys(session: AsyncSession) -> Any:
    place = await session.get_one(Place, ("it", 1))
    place.country, place.code = "ch", 4
    await session.commit()
    return [inspect(place).identity, await session.get(Place, ("it", 1))]


@unit("Session Basics / Updating")
async def flag_what_was_not_changed(session: AsyncSession) -> Any:
    pen = await session.get_one(Order, 1)
    flag_modified(pen, "title")
    await session.commit()
    return pen.version


@unit("Session Basics / Updating")
async def set_a_committed_value(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    set_committed_value(ann, "age", 99)
    await session.commit()
    return [ann.age, await session.scalar(select(Person.age).where(Person.id == 1))]


@unit("Session Basics / Adding new or existing items")
async def two_rows_of_one_key(session: AsyncSession) -> Any:
    session.add_all(
        [Place(country="de", code=1, point=Point(5, 6)), Place(country="de", code=1, point=Point(7, 8))]
    )
    await session.flush()


@unit("Session Basics / Flushing")
async def flush_of_some(session: AsyncSession) -> Any:
    session.add_all([Tag(id=10, name="green"), ann := await session.get_one(Person, 1)])
    ann.age = 99
    await session.run_sync(lambda inside: inside.flush([ann]))
    return [len(session.new), len(session.dirty)]


# ---------------------------------------------------------------------- states


@unit("State Management / make_transient")
async def a_row_that_was_never_read(session: AsyncSession) -> Any:
    pen = Order(id=1, version=1)
    make_transient_to_detached(pen)
    session.add(pen)
    await session.refresh(pen)
    pen.title = "pencil"
    await session.commit()
    return loaded(pen)


@unit("State Management / Quick intro to object states")
async def what_was_deleted(session: AsyncSession) -> Any:
    cup = await session.get_one(Order, 3)
    await session.delete(cup)
    await session.flush()
    seen = [was_deleted(cup), cup in session]
    await session.rollback()
    return [*seen, was_deleted(cup), cup in session]


@unit("State Management / Merging")
async def merge_of_a_pickle(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.expunge(ann)
    copy = pickle.loads(pickle.dumps(ann))
    copy.age = 31
    merged = await session.merge(copy)
    await session.commit()
    return [merged is copy, merged.age]


@unit("State Management / Merging")
async def merge_of_what_is_changed(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 99
    merged = await session.merge(Person(id=1, name="anna"))
    await session.commit()
    return [merged is ann, ann.age, ann.name]


@unit("State Management / Merging")
async def merge_of_two_keys(session: AsyncSession) -> Any:
    merged = await session.merge(Place(country="it", code=1, point=Point(7, 8)))
    await session.commit()
    return loaded(merged)


@unit("State Management / Merging")
async def merge_without_a_key(session: AsyncSession) -> Any:
    merged = await session.merge(Person(name="dee"))
    await session.flush()
    return [merged in session, isinstance(merged.id, int)]


@unit("State Management / Merging")
async def merge_changes_without_loading(session: AsyncSession) -> Any:
    await session.merge(Person(id=1, name="anna"), load=False)


@unit("State Management / Expunging")
async def expunge_with_its_collection(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1, options=[selectinload(Person.orders)])
    session.expunge(ann)
    return [one in session for one in ann.orders]


@unit("State Management / Expunging")
async def expunge_a_pending_row(session: AsyncSession) -> Any:
    green = Tag(id=10, name="green")
    session.add(green)
    session.expunge(green)
    await session.commit()
    return [inspect(green).transient, await session.get(Tag, 10)]


@unit("State Management / Refreshing and expiring")
async def refresh_of_what_is_changed(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age, ann.name = 99, "anna"
    await session.refresh(ann, ["age"])
    return [ann.age, ann.name, ann in session.dirty]


@unit("State Management / Refreshing and expiring")
async def refresh_after_a_bulk_update(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    await session.execute(text("UPDATE like_people SET age = 44 WHERE id = 1"))
    stale = ann.age
    await session.refresh(ann)
    return [stale, ann.age]


@unit("State Management / Session of an object")
async def the_async_session_of_an_object(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    return [async_object_session(ann) is session, async_session(session.sync_session) is session]


# ---------------------------------------------------------------------- locks, transactions, events


@unit("ORM Querying Guide / Locks")
async def lock_without_waiting(session: AsyncSession) -> Any:
    return (await session.scalars(PEOPLE.with_for_update(nowait=True))).all()


@unit("ORM Querying Guide / Locks")
async def lock_what_is_free(session: AsyncSession) -> Any:
    return (await session.scalars(PEOPLE.with_for_update(skip_locked=True))).all()


@unit("ORM Querying Guide / Locks")
async def lock_by_get_and_change(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1, with_for_update={"nowait": True})
    ann.age += 1
    await session.commit()
    return [ann.age, session.in_transaction()]


@unit("ORM Querying Guide / Locks")
async def lock_and_roll_back(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1, with_for_update=True)
    await session.rollback()
    return [session.in_transaction(), loaded(ann)]


@unit("ORM Querying Guide / Locks")
async def lock_of_a_changed_row(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    ann.age = 99
    await session.scalars(PEOPLE.with_for_update())
    return [ann.age, len(session.dirty)]


@unit("Transactions / After a flush that failed")
async def commit_again_after_a_failed_commit(session: AsyncSession) -> Any:
    session.add(Tag(id=1, name="again"))
    try:
        await session.commit()
    except Exception:
        await session.commit()


@unit("Transactions / Two-phase commit")
async def prepare_without_two_phases(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.flush()
    await session.run_sync(lambda inside: inside.prepare())


@unit("Transactions / Managing transactions")
async def begin_and_commit_by_its_object(session: AsyncSession) -> Any:
    transaction = await session.begin()
    session.add(Tag(id=10, name="green"))
    await transaction.commit()
    return [transaction.is_active, session.in_transaction()]


@unit("Transactions / Managing transactions")
async def begin_and_roll_back_by_its_object(session: AsyncSession) -> Any:
    transaction = await session.begin()
    session.add(Tag(id=10, name="green"))
    await session.flush()
    await transaction.rollback()
    return [transaction.is_active, session.in_transaction(), len(session.new)]


@unit("Transactions / Managing transactions")
async def commit_inside_of_a_begin_block(session: AsyncSession) -> Any:
    async with session.begin():
        session.add(Tag(id=10, name="green"))
        await session.commit()
    return session.in_transaction()


@unit("Transactions / Managing transactions")
async def work_after_a_commit_inside_of_a_begin_block(session: AsyncSession) -> Any:
    async with session.begin():
        await session.commit()
        await session.get(Person, 1)


@unit("Transactions / Managing transactions")
async def expire_on_commit_of_the_rest(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    session.expire(ann)
    ann.age = 99
    await session.commit()
    return loaded(ann)


@unit("Transactions / Using SAVEPOINT")
async def a_savepoint_in_a_begin_block(session: AsyncSession) -> Any:
    async with session.begin():
        session.add(Tag(id=10, name="green"))
        async with session.begin_nested() as nested:
            session.add(Tag(id=11, name="grey"))
            await session.flush()
            await nested.rollback()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()


@unit("Transactions / Using SAVEPOINT")
async def a_savepoint_after_reads(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    async with session.begin_nested():
        ann.age = 31
    seen = [session.in_transaction(), session.in_nested_transaction(), ann.age]
    await session.commit()
    return seen


@unit("Transactions / Using SAVEPOINT")
async def what_a_savepoint_expires(session: AsyncSession) -> Any:
    ann, bob = await session.get_one(Person, 1), await session.get_one(Person, 2)
    async with session.begin_nested() as nested:
        ann.age = 31
        await session.flush()
        await nested.rollback()
    return [loaded(ann), loaded(bob)]


def listen(session: AsyncSession, *names: str) -> list[str]:
    """Return the names of events, as they happen."""
    heard: list[str] = []
    for name in names:
        event.listen(session.sync_session, name, lambda *_arguments, name=name: heard.append(name))
    return heard


@unit("ORM Events / Session events")
async def events_of_a_flush(session: AsyncSession) -> Any:
    heard = listen(session, "before_flush", "after_flush", "after_flush_postexec", "pending_to_persistent")
    session.add(Tag(id=10, name="green"))
    await session.flush()
    return heard


@unit("ORM Events / Session events")
async def events_of_a_rollback(session: AsyncSession) -> Any:
    heard = listen(session, "after_rollback", "after_soft_rollback", "pending_to_transient")
    session.add(Tag(id=10, name="green"))
    await session.rollback()
    return heard


@unit("ORM Events / Session events")
async def events_of_a_delete(session: AsyncSession) -> Any:
    heard = listen(session, "persistent_to_deleted", "deleted_to_detached", "deleted_to_persistent")
    await session.delete(await session.get_one(Order, 3))
    await session.commit()
    return heard


@unit("ORM Events / Session events")
async def events_of_a_transaction(session: AsyncSession) -> Any:
    heard = listen(session, "after_begin", "after_commit", "after_transaction_end")
    session.add(Tag(id=10, name="green"))
    await session.commit()
    return heard


@unit("ORM Events / Session events")
async def events_of_bulk_statements(session: AsyncSession) -> Any:
    heard = listen(session, "after_bulk_update", "after_bulk_delete", "do_orm_execute")
    await session.execute(update(Person).where(Person.id == 1).values(age=3))
    await session.execute(delete(Order).where(Order.id == 3))
    return heard


@unit("ORM Events / Session events")
async def a_listener_that_adds_before_a_flush(session: AsyncSession) -> Any:
    event.listen(session.sync_session, "before_flush", add_a_chapter)
    rose = await session.get_one(Book, 1)
    rose.title = "the rose"
    await session.commit()
    return (await session.scalars(select(Chapter.title).order_by(Chapter.id))).all()


def add_a_chapter(inside: Session, *_arguments: Any) -> None:
    inside.add(Chapter(id=20, title="added", position=9, book_id=1))


@unit("ORM Events / Session events")
async def a_listener_that_reads_after_a_flush(session: AsyncSession) -> Any:
    seen: list[Any] = []
    event.listen(
        session.sync_session,
        "after_flush_postexec",
        lambda inside, *_arguments: seen.append(inside.scalar(select(func.count()).select_from(Tag))),
    )
    session.add(Tag(id=10, name="green"))
    await session.flush()
    return seen


@unit("ORM Events / Session events")
async def a_listener_that_refuses_a_flush(session: AsyncSession) -> Any:
    def refuse(*_arguments: Any) -> None:
        raise LookupError("not this one")

    event.listen(session.sync_session, "before_flush", refuse)
    session.add(Tag(id=10, name="green"))
    try:
        await session.flush()
    except LookupError:
        return [len(session.new), session.is_active]


@unit("ORM Events / Session events")
async def a_listener_that_filters_reads(session: AsyncSession) -> Any:
    def filter_them(state: Any) -> None:
        if state.is_select and not state.is_column_load:
            state.statement = state.statement.where(Person.id > 1)

    event.listen(session.sync_session, "do_orm_execute", filter_them)
    return (await session.scalars(PEOPLE)).all()


@unit("ORM Events / Session events")
async def a_listener_that_answers_itself(session: AsyncSession) -> Any:
    frozen = (await session.execute(PEOPLE)).freeze()
    event.listen(session.sync_session, "do_orm_execute", lambda _state: frozen())
    return (await session.scalars(select(Person).where(Person.id == 1))).all()


@unit("ORM Events / Session events")
async def a_listener_that_looks_before_a_commit(session: AsyncSession) -> Any:
    seen: list[int] = []
    event.listen(session.sync_session, "before_commit", lambda inside: seen.append(len(inside.new)))
    session.add(Tag(id=10, name="green"))
    await session.commit()
    return seen


@unit("ORM Events / Session events")
async def events_of_an_empty_commit(session: AsyncSession) -> Any:
    heard = listen(
        session, "before_commit", "after_commit", "after_transaction_create", "after_transaction_end"
    )
    await session.commit()
    return heard


@unit("ORM Events / Session events")
async def a_listener_that_refuses_a_commit(session: AsyncSession) -> Any:
    def refuse(_inside: Session) -> None:
        raise LookupError("not this one")

    event.listen(session.sync_session, "before_commit", refuse)
    session.add(Tag(id=10, name="green"))
    await session.flush()
    try:
        await session.commit()
    except LookupError:
        event.remove(session.sync_session, "before_commit", refuse)
    await session.rollback()
    return await session.get(Tag, 10)


@unit("ORM Events / Session events")
async def a_listener_that_writes_before_a_commit(session: AsyncSession) -> Any:
    event.listen(
        session.sync_session, "before_commit", lambda inside: inside.add(Tag(id=11, name="grey")), once=True
    )
    session.add(Tag(id=10, name="green"))
    await session.commit()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()


# ---------------------------------------------------------------------- the session


@unit("Asynchronous I/O / Streaming")
async def stream_scalars_first(session: AsyncSession) -> Any:
    return await (await session.stream_scalars(PEOPLE)).first()


@unit("Asynchronous I/O / Streaming")
async def stream_unique(session: AsyncSession) -> Any:
    found = await session.stream_scalars(PEOPLE.options(joinedload(Person.orders)))
    return [(one, loaded(one)) for one in await found.unique().all()]


@unit("Asynchronous I/O / Streaming")
async def stream_mappings_by_parts(session: AsyncSession) -> Any:
    found = await session.stream(
        select(Person.id, Person.name).order_by(Person.id).execution_options(yield_per=2)
    )
    return [[dict(row) for row in part] async for part in found.mappings().partitions()]


@unit("Asynchronous I/O / Streaming")
async def stream_and_fetch_by_hand(session: AsyncSession) -> Any:
    found = await session.stream(select(Person.id).order_by(Person.id))
    seen = [await found.fetchone(), await found.fetchmany(5), await found.fetchone()]
    await found.close()
    return seen


@unit("Asynchronous I/O / Streaming")
async def stream_what_is_not_there(session: AsyncSession) -> Any:
    await session.stream(text("SELECT nothing FROM nowhere_at_all"))


@unit("Session API")
async def enable_relationship_loading(session: AsyncSession) -> Any:
    order = Order(id=50, person_id=1)

    def read(inside: Session) -> Person | None:
        inside.enable_relationship_loading(order)
        return order.person

    return await session.run_sync(read)


@unit("Session API")
async def the_rows_of_a_parent(session: AsyncSession) -> Any:
    ann = await session.get_one(Person, 1)
    return (
        await session.scalars(select(Order).where(with_parent(ann, Person.orders)).order_by(Order.id))
    ).all()


@unit("Session API")
async def options_of_the_connection(session: AsyncSession) -> Any:
    connection = await session.connection(execution_options={"schema_translate_map": {None: "elsewhere"}})
    assert connection.sync_connection is not None
    return connection.sync_connection.get_execution_options()["schema_translate_map"]


@unit("Session API")
async def execution_options_of_a_session(session: AsyncSession) -> Any:
    session.sync_session.execution_options = {"populate_existing": True}  # type: ignore[assignment]
    ann = await session.get_one(Person, 1)
    await session.execute(text("UPDATE like_people SET age = 44 WHERE id = 1"))
    await session.scalars(PEOPLE)
    return ann.age


@unit("Session API")
async def get_with_an_identity_token(session: AsyncSession) -> Any:
    return await session.get(Person, 1, identity_token="elsewhere")


@unit("Session API")
async def is_it_changed(session: AsyncSession) -> Any:
    eco = await session.get_one(Author, 1)
    before = session.is_modified(eco)
    eco.first = "U."
    return [before, session.is_modified(eco), inspect(eco).modified]


@unit("Session API")
async def in_the_middle_of_no_autoflush(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    with session.no_autoflush:
        seen = [len(session.new), session.autoflush]
    return [*seen, session.autoflush]


@unit("Session API")
async def a_session_with_autoflush(session: AsyncSession) -> Any:
    session.autoflush = True
    session.add(Tag(id=10, name="green"))
    found = await session.scalar(select(func.count()).select_from(Tag))
    await session.rollback()
    return found


@unit("Session API")
async def close_all_and_go_on(session: AsyncSession) -> Any:
    session.add(Tag(id=10, name="green"))
    await session.aclose()
    session.add(Tag(id=11, name="grey"))
    await session.commit()
    return (await session.scalars(select(Tag.name).order_by(Tag.id))).all()
