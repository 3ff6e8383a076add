"""Functions inside `run_sync`, awaitable attributes, reflection, and SQL on the connection of a session."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, delete, func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, contains_eager, joinedload, selectinload

from tests.sessions.library import Author, Book, Chapter
from tests.sessions.shop import Order, Person, Tag
from tests.sessions.units.unit import family, loaded, unit

RUN_SYNC = "Asynchronous I/O / Running synchronous methods"
ATTRS = "Asynchronous I/O / AsyncAttrs"


def lazy(inside: Session) -> Any:
    ann = inside.get_one(Person, 1)
    return [len(ann.orders), ann.bio, [len(one.tags) for one in ann.orders], [one.name for one in ann.staff]]


def add_and_commit(inside: Session) -> Any:
    inside.add(Tag(id=10, name="green"))
    inside.commit()
    return inside.scalar(select(func.count()).select_from(Tag))


def commit_twice(inside: Session) -> Any:
    for number in (10, 11):
        with inside.begin_nested():
            inside.add(Tag(id=number, name=str(number)))
        inside.commit()
    return [one.name for one in inside.scalars(select(Tag).order_by(Tag.id))]


def roll_back(inside: Session) -> Any:
    inside.add(Tag(id=10, name="green"))
    inside.flush()
    inside.rollback()
    return [inside.get(Tag, 10), inside.in_transaction()]


def fail_in_a_savepoint(inside: Session) -> Any:
    for name in ("red", "green"):
        try:
            with inside.begin_nested():
                inside.add(Tag(id=10, name=name))
        except Exception:
            continue
    inside.commit()
    return [one.name for one in inside.scalars(select(Tag).order_by(Tag.id))]


def lock_and_change(inside: Session) -> Any:
    ann = inside.query(Person).filter_by(id=1).with_for_update().one()
    ann.age += 1
    inside.commit()
    return ann.age


def bulk_with_keys(inside: Session) -> Any:
    tags = [Tag(id=10, name="green"), Tag(id=11, name="grey")]
    inside.bulk_save_objects(tags, return_defaults=True)
    inside.commit()
    return [isinstance(one.id, int) for one in tags]


def reflect(inside: Session) -> Any:
    table = Table("like_tags", MetaData(), autoload_with=inside.connection())
    return [
        sorted(column.name for column in table.columns),
        "like_orders" in inspect(inside.connection()).get_table_names(),
    ]


def create_and_drop(inside: Session) -> Any:
    table = Table("like_ours", MetaData(), Column("id", Integer, primary_key=True), mysql_engine="InnoDB")
    table.create(inside.connection())
    inside.execute(insert(table).values(id=1))
    found = inside.scalar(select(func.count()).select_from(table))
    inside.commit()
    table.drop(inside.connection())
    inside.commit()
    return found


family(
    RUN_SYNC, "run", lambda session, function: session.run_sync(function),
    ("lazy loads", lazy),
    ("add and commit", add_and_commit),
    ("two commits", commit_twice),
    ("roll back", roll_back),
    ("a savepoint that fails", fail_in_a_savepoint),
    ("lock and change", lock_and_change),
    ("bulk with keys", bulk_with_keys),
    ("reflect", reflect),
    ("create and drop", create_and_drop),
    ("no_autoflush", lambda inside: [inside.add(Tag(id=10, name="green")), len(inside.new)][1:]),
    ("Query.count", lambda inside: inside.query(Person).filter(Person.age > 20).count()),
    ("Query.get", lambda inside: inside.get(Person, 1).name),
    ("Query.update", lambda inside: [inside.query(Person).filter_by(id=1).update({"age": 5}), inside.commit()][0]),
    ("Query.delete", lambda inside: [inside.query(Order).filter_by(id=3).delete(), inside.commit()][0]),
    ("Query.yield_per", lambda inside: [one.name for one in inside.query(Person).order_by(Person.id).yield_per(2)]),
    ("Query.options", lambda inside: [
        loaded(one) for one in inside.query(Person).options(joinedload(Person.orders)).order_by(Person.id)]),
    ("Query.exists", lambda inside: inside.query(inside.query(Person).filter_by(name="ann").exists()).scalar()),
    ("Query.with_entities", lambda inside: inside.query(Person).with_entities(Person.name).order_by(Person.id).all()),
    ("Query.join", lambda inside: [
        loaded(one) for one in inside.query(Person).join(Person.orders).options(contains_eager(Person.orders))]),
    ("an error", lambda _inside: int("nothing")),
    ("a statement that fails", lambda inside: inside.execute(text("SELECT nothing FROM nowhere_at_all"))),
)  # fmt: skip


# ---------------------------------------------------------------------- AsyncAttrs


@unit(ATTRS)
async def await_a_collection(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    return [
        [one.title for one in await rose.awaitable_attrs.chapters],
        loaded(rose)["chapters"] is rose.chapters,
    ]


@unit(ATTRS)
async def await_what_is_loaded(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1, options=[selectinload(Book.chapters)])
    return [one.title for one in await rose.awaitable_attrs.chapters]


@unit(ATTRS)
async def await_a_row(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    return (await rose.awaitable_attrs.author).first


@unit(ATTRS)
async def await_what_expired(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    session.expire(rose)
    return await rose.awaitable_attrs.title


@unit(ATTRS)
async def await_what_an_update_leaves_unloaded(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    rose.title = "the rose"
    await session.flush()
    return await rose.awaitable_attrs.counted


@unit(ATTRS)
async def await_after_a_rollback(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    await session.rollback()
    return [await rose.awaitable_attrs.pages, rose.title]


@unit(ATTRS)
async def await_of_a_new_row(session: AsyncSession) -> Any:
    book = Book(id=10, title="new")
    session.add(book)
    await session.commit()
    return [await book.awaitable_attrs.chapters, await book.awaitable_attrs.author]


@unit(ATTRS)
async def await_and_append(session: AsyncSession) -> Any:
    rose = await session.get_one(Book, 1)
    (await rose.awaitable_attrs.chapters).append(Chapter(id=10, title="last"))
    await session.commit()
    return (await session.execute(select(Chapter.id, Chapter.position).order_by(Chapter.id))).all()


# ---------------------------------------------------------------------- the connection


async def on_connection(session: AsyncSession, statement: Callable[[], Any]) -> Any:
    connection = await session.connection()
    found = await connection.execute(statement())
    seen = found.all() if found.returns_rows else found.rowcount
    await session.commit()
    return seen


family(
    "Asynchronous I/O / The connection of a session", "connection", on_connection,
    ("a SELECT", lambda: select(Person.id, Person.name).order_by(Person.id)),
    ("text", lambda: text("SELECT name FROM like_tags ORDER BY id")),
    ("an INSERT", lambda: insert(Tag.__table__).values(id=10, name="green")),  # type: ignore[arg-type]  # a Table
    ("an UPDATE", lambda: update(Person).where(Person.age > 20).values(age=3)),
    ("a DELETE", lambda: delete(Order).where(Order.id == 3)),
    ("a lock", lambda: select(Person.id).where(Person.id == 1).with_for_update()),
)  # fmt: skip


@unit("Asynchronous I/O / The connection of a session")
async def a_savepoint_of_the_connection(session: AsyncSession) -> Any:
    await session.execute(update(Person).where(Person.id == 1).values(age=1))
    connection = await session.connection()
    nested = await connection.begin_nested()
    await connection.execute(update(Person).where(Person.id == 1).values(age=2))
    await nested.rollback()
    await session.commit()
    return await session.scalar(select(Person.age).where(Person.id == 1))


@unit("Asynchronous I/O / The connection of a session")
async def driver_sql_of_the_connection(session: AsyncSession) -> Any:
    connection = await session.connection()
    await connection.exec_driver_sql("UPDATE like_people SET age = 9 WHERE id = 1")
    found = (await connection.exec_driver_sql("SELECT age FROM like_people ORDER BY id")).scalars().all()
    await session.commit()
    return found


@unit("Asynchronous I/O / The connection of a session")
async def a_stream_of_the_connection(session: AsyncSession) -> Any:
    connection = await session.connection()
    async with connection.stream(select(Person.id).order_by(Person.id)) as found:
        return [row.id async for row in found]


@unit("Asynchronous I/O / The connection of a session")
async def two_connections_are_one(session: AsyncSession) -> Any:
    return (await session.connection()).sync_connection is (await session.connection()).sync_connection


@unit("Asynchronous I/O / The connection of a session")
async def an_author_by_the_connection(session: AsyncSession) -> Any:
    connection = await session.connection()
    await connection.execute(
        insert(Author), [{"id": 10, "first": "A", "last": "B"}, {"id": 11, "first": "C", "last": "D"}]
    )
    await session.commit()
    return await session.scalar(select(func.count()).select_from(Author))
