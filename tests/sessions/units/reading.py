"""Reads: the SELECT statements of the querying guide, and the ways to run them."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Integer,
    String,
    and_,
    bindparam,
    case,
    column,
    except_,
    exists,
    func,
    lambda_stmt,
    literal,
    literal_column,
    not_,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
    update,
    values,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    Bundle,
    aliased,
    selectin_polymorphic,
    selectinload,
    with_parent,
    with_polymorphic,
)

from tests.sessions.shop import PEOPLE, Bike, Car, Mood, Order, Person, Place, Point, Tag, Vehicle
from tests.sessions.units.unit import UNITS, Run, Unit, family, then, unit

boss = aliased(Person)
older = select(Person).where(Person.age > 20).subquery()
elders = select(Person.id, Person.name).where(Person.age > 20).cte("elders")
chain = select(Person.id, Person.boss_id).where(Person.id == 2).cte("chain", recursive=True)
chain = chain.union_all(select(Person.id, Person.boss_id).join(chain, Person.id == chain.c.boss_id))

NOON = datetime.fromisoformat("2026-01-02T12:00:00.678900")

SELECTS: list[tuple[str, Any]] = [
    ("entity", lambda: select(Person).order_by(Person.id)),
    ("columns", lambda: select(Person.id, Person.name).order_by(Person.id)),
    ("where", lambda: select(Person).where(Person.name == "ann")),
    ("filter_by", lambda: select(Person).filter_by(name="bob", age=17)),
    ("no row", lambda: select(Person).where(Person.name == "nobody")),
    ("limit and offset", lambda: select(Person).order_by(Person.id).limit(1).offset(1)),
    ("in", lambda: select(Person).where(Person.id.in_([1, 3])).order_by(Person.id)),
    ("an empty in", lambda: select(Person).where(Person.id.in_([]))),
    ("and, or, not", lambda: select(Person.id).where(
        or_(and_(Person.age > 20, Person.id < 3), not_(Person.name != "bob"))).order_by(Person.id)),
    ("between and like", lambda: select(Person.id).where(
        Person.age.between(10, 40), Person.name.like("%n%")).order_by(Person.id)),
    ("is null", lambda: select(Person.id).where(Person.boss_id.is_(None))),
    ("distinct", lambda: select(Order.person_id).distinct().order_by(Order.person_id)),
    ("join", lambda: select(Person, Order).join(Person.orders).order_by(Order.id)),
    ("outer join", lambda: select(Person.name, Order.title).outerjoin(Person.orders).order_by(Person.id, Order.id)),
    ("join on", lambda: select(Person.name, Order.title).join(Order, Order.person_id == Person.id).order_by(Order.id)),
    ("many to many", lambda: select(Order.id, Tag.name).join(Order.tags).order_by(Order.id, Tag.id)),
    ("an alias", lambda: select(Person.name, boss.name).join(boss, Person.boss).order_by(Person.id)),
    ("a subquery", lambda: select(older.c.name).order_by(older.c.id)),
    ("an entity of a subquery", lambda: select(aliased(Person, older)).order_by(older.c.id)),
    ("a CTE", lambda: select(Order.title).join(elders, elders.c.id == Order.person_id).order_by(Order.id)),
    ("a recursive CTE", lambda: select(chain.c.id).order_by(chain.c.id)),
    ("a scalar subquery", lambda: select(
        Person.name, select(func.count(Order.id)).where(Order.person_id == Person.id).scalar_subquery()
    ).order_by(Person.id)),
    ("exists", lambda: select(Person.id).where(exists().where(Order.person_id == Person.id)).order_by(Person.id)),
    ("any", lambda: select(Person.id).where(Person.orders.any(Order.title == "pen"))),
    ("has", lambda: select(Order.id).where(Order.person.has(name="bob"))),
    ("contains", lambda: select(Order.id).where(Order.tags.any(Tag.name == "blue"))),
    ("of a relationship", lambda: select(Order).where(with_parent(Person(id=1), Person.orders)).order_by(Order.id)),
    ("group by", lambda: select(Order.person_id, func.count(), func.sum(Order.price)).group_by(Order.person_id)
        .having(func.count() > 1)),
    ("a window", lambda: select(Order.id, func.row_number().over(
        partition_by=Order.person_id, order_by=Order.id.desc())).order_by(Order.id)),
    ("a union", lambda: union(select(Person.name), select(Tag.name)).order_by("name")),
    ("a union all", lambda: union_all(select(literal(1).label("n")), select(literal(1)))),
    ("except", lambda: except_(select(Person.id), select(Order.person_id)).order_by("id")),
    ("a union of entities", lambda: select(Person).from_statement(
        union_all(select(Person).where(Person.id == 1), select(Person).where(Person.id == 2)))),
    ("case", lambda: select(case((Person.age < 18, "minor"), else_="adult")).order_by(Person.id)),
    ("a cast", lambda: select(func.concat(Person.name, literal("!"))).order_by(Person.id)),
    ("literals", lambda: select(literal(1), literal("x"), literal_column("2"))),
    ("a literal time", lambda: select(literal(NOON))),
    ("a bundle", lambda: select(Bundle("pair", Person.id, Person.name)).order_by(Person.id)),
    ("a hybrid", lambda: select(Person.name).where(Person.is_adult == true()).order_by(Person.id)),
    ("a column property", lambda: select(Person.doubled).order_by(Person.id)),
    ("a composite", lambda: select(Place).where(Place.point == Point(1, 2))),
    ("a tuple", lambda: select(Place.country).where(tuple_(Place.country, Place.code).in_([("it", 1), ("de", 1)]))),
    ("an enum", lambda: select(Person.mood).where(Person.mood == Mood.GOOD)),
    ("a bound parameter", lambda: select(Person.name).where(Person.id == bindparam("n", 2))),
    ("text", lambda: text("SELECT id, name FROM like_people ORDER BY id")),
    ("text with a comment", lambda: text("-- all\nSELECT id FROM like_people ORDER BY id")),
    ("text in parentheses", lambda: text("SELECT id FROM (SELECT id FROM like_people) AS x ORDER BY id")),
    ("text with a CTE", lambda: text("WITH x AS (SELECT id FROM like_people) SELECT id FROM x ORDER BY id")),
    ("text with columns", lambda: text("SELECT id, name FROM like_people ORDER BY id").columns(Person.id, Person.name)),
    ("text with values", lambda: text("SELECT name FROM like_people WHERE id = :n").bindparams(n=3)),
    ("entities of text", lambda: select(Person).from_statement(text("SELECT * FROM like_people ORDER BY id"))),
    ("a lambda", lambda: lambda_stmt(lambda: select(Person).order_by(Person.id))),
    ("a polymorphic base", lambda: select(Vehicle).order_by(Vehicle.id)),
    ("a subclass", lambda: select(Car)),
    ("a subclass in the same table", lambda: select(Bike)),
    ("with_polymorphic", lambda: select(with_polymorphic(Vehicle, [Car]))),
    ("selectin_polymorphic", lambda: select(Vehicle).options(selectin_polymorphic(Vehicle, [Car]))),
    ("a values construct", lambda: select(values(column("n", Integer), column("s", String(5)), name="v").data(
        [(1, "a")]))),
    ("a statement that the database refuses", lambda: text("SELECT nothing FROM nowhere_at_all")),
]  # fmt: skip


async def read_all(session: AsyncSession, make: Callable[[], Any]) -> Any:
    return (await session.execute(make())).all()


async def read_one(session: AsyncSession, make: Callable[[], Any]) -> Any:
    return (await session.execute(make())).one()


family("ORM Querying Guide / Writing SELECT statements", "all", read_all, *SELECTS)
family("ORM Querying Guide / Writing SELECT statements", "one", read_one,
       *(one for one in SELECTS if one[0] in {"where", "no row", "entity", "a composite", "a lambda"}))  # fmt: skip


WAYS: list[tuple[str, Run]] = [
    ("execute, scalars", lambda s: then(s.execute(PEOPLE), lambda found: found.scalars().all())),
    ("execute, first", lambda s: then(s.execute(PEOPLE), lambda found: found.first())),
    ("execute, mappings", lambda s: then(s.execute(select(Person.id)), lambda found: list(found.mappings()))),
    ("execute, partitions", lambda s: then(s.execute(PEOPLE), lambda found: [list(p) for p in found.partitions(2)])),
    ("execute, unique", lambda s: then(s.execute(PEOPLE), lambda found: found.unique().all())),
    ("execute, columns", lambda s: then(
        s.execute(select(Person.id, Person.name)), lambda found: found.columns("name").all())),
    ("execute, keys", lambda s: then(s.execute(select(Person.id, Person.age)), lambda found: list(found.keys()))),
    ("execute, fetchmany", lambda s: then(s.execute(PEOPLE), lambda found: [found.fetchmany(2), found.fetchmany(2)])),
    ("execute, freeze", lambda s: then(s.execute(PEOPLE), lambda found: found.freeze()().all())),
    ("execute, scalar_one_or_none", lambda s: then(
        s.execute(select(Person).where(Person.id == 9)), lambda found: found.scalar_one_or_none())),
    ("execute, scalar_one of three", lambda s: then(s.execute(PEOPLE), lambda found: found.scalar_one())),
    ("execute, of parameters", lambda s: then(
        s.execute(select(Person.name).where(Person.id == bindparam("n")), {"n": 2}), lambda found: found.all())),
    ("scalars", lambda s: then(s.scalars(PEOPLE), lambda found: found.all())),
    ("scalars, first", lambda s: then(s.scalars(PEOPLE), lambda found: found.first())),
    ("scalars, one", lambda s: then(s.scalars(select(Person).where(Person.id == 1)), lambda found: found.one())),
    ("scalars, one of none", lambda s: then(
        s.scalars(select(Person).where(Person.id == 9)), lambda found: found.one())),
    ("scalar", lambda s: s.scalar(select(func.count()).select_from(Person))),
    ("scalar of none", lambda s: s.scalar(select(Person).where(Person.id == 9))),
    ("get", lambda s: s.get(Person, 1)),
    ("get of none", lambda s: s.get(Person, 9)),
    ("get, two keys", lambda s: s.get(Place, ("it", 1))),
    ("get, keys by name", lambda s: s.get(Place, {"country": "fr", "code": 1})),
    ("get, with options", lambda s: s.get(Person, 1, options=[selectinload(Person.orders)])),
    ("get, for update", lambda s: s.get(Person, 1, with_for_update=True)),
    ("get, fresh", lambda s: s.get(Person, 1, populate_existing=True)),
    ("get, text as a key", lambda s: s.get(Person, "1")),
    ("get, of a subclass", lambda s: s.get(Vehicle, 1)),
    ("get, of the wrong subclass", lambda s: s.get(Bike, 1)),
    ("get, a key too many", lambda s: s.get(Person, (1, 2))),
    ("get_one", lambda s: s.get_one(Person, 1)),
    ("get_one of none", lambda s: s.get_one(Person, 9)),
    ("for update", lambda s: then(s.scalars(PEOPLE.with_for_update()), lambda found: found.all())),
    ("execution options", lambda s: then(
        s.execute(PEOPLE, execution_options={"populate_existing": True}), lambda found: found.scalars().all())),
    ("run_sync", lambda s: s.run_sync(lambda inside: inside.scalars(PEOPLE).all())),
    ("run_sync, query", lambda s: s.run_sync(lambda inside: inside.query(Person).filter_by(age=17).all())),
    ("connection", lambda s: then(s.connection(), lambda found: found.in_transaction())),
]  # fmt: skip


UNITS.extend(Unit("Asynchronous I/O / Using AsyncSession", name, run) for name, run in WAYS)


@unit("Asynchronous I/O / Streaming")
async def stream_all(session: AsyncSession) -> Any:
    return await (await session.stream(PEOPLE)).all()


@unit("Asynchronous I/O / Streaming")
async def stream_one_by_one(session: AsyncSession) -> Any:
    return [row async for row in await session.stream(select(Person.id).order_by(Person.id))]


@unit("Asynchronous I/O / Streaming")
async def stream_scalars_by_parts(session: AsyncSession) -> Any:
    found = await session.stream_scalars(PEOPLE.execution_options(yield_per=2))
    return [list(part) async for part in found.partitions()]


@unit("Asynchronous I/O / Streaming")
async def stream_first_and_leave(session: AsyncSession) -> Any:
    found = await session.stream(PEOPLE)
    first = await found.first()
    return [first, await session.scalar(select(func.count()).select_from(Tag))]


@unit("Asynchronous I/O / Streaming")
async def stream_text(session: AsyncSession) -> Any:
    return [row async for row in await session.stream(text("SELECT id FROM like_people ORDER BY id"))]


@unit("Asynchronous I/O / Streaming")
async def read_from_the_connection(session: AsyncSession) -> Any:
    connection = await session.connection()
    return (await connection.execute(select(Person.id).order_by(Person.id))).all()


@unit("Asynchronous I/O / Streaming")
async def write_by_the_connection(session: AsyncSession) -> Any:
    connection = await session.connection()
    await connection.execute(update(Person).where(Person.id == 1).values(age=99))
    await session.commit()
    return await session.scalar(select(Person.age).where(Person.id == 1))
