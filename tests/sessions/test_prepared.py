"""A prepared SELECT bypasses SQLAlchemy's execution without losing any of its guarantees."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from asyncmy.connection import PreparedStatement
from sqlalchemy import String, bindparam, cast, func, insert, literal, select, text, tuple_
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.util.concurrency import greenlet_spawn

from latchkey.middleware.session_errors import EndedSessionError, OtherTaskError
from latchkey.models import ApiKey, Nonce, User
from latchkey.service.database import SQLAlchemy, driver, prepared
from latchkey.service.database.prepared import Prepared
from tests import wire
from tests.conftest import on_mariadb, only_on_mariadb, table_of

USERS, KEYS = table_of(User), table_of(ApiKey)
# Text, text stored as bytes, words and times: the driver's values need a conversion.
EVERY_TYPE = select(
    KEYS.c.id, KEYS.c.access_key, KEYS.c.scopes, KEYS.c.expires_at, KEYS.c.last_used_at, USERS.c.created_at
).join_from(KEYS, USERS)
BY_KEY = Prepared(EVERY_TYPE.where(KEYS.c.access_key == bindparam("access_key")))
BY_TIME = Prepared(
    EVERY_TYPE.where(KEYS.c.expires_at > bindparam("after"), KEYS.c.name == bindparam("name")).order_by(
        KEYS.c.id
    )
)
NONCE = Prepared(insert(table_of(Nonce)))
IDS = Prepared(
    select(KEYS.c.access_key)
    .where(KEYS.c.access_key.in_(bindparam("some", expanding=True)), KEYS.c.name == bindparam("name"))
    .order_by(KEYS.c.access_key)
)
USER = Prepared(select(USERS.c.name).where(USERS.c.id == bindparam("id")))


@pytest.fixture
async def keys(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        for number, name in enumerate(("lka_a", "lka_A", "lka_b")):
            await ApiKey.create(
                access_key=name,
                user_id=first,
                name="one",
                mode="bearer",
                scopes=("users:read", "me:write"),
                expires_at=datetime(2030, 1, 1 + number, 12, tzinfo=UTC),
            )
        await session.commit()


@pytest.mark.parametrize(
    ("asked", "values"),
    [
        pytest.param(BY_KEY, {"access_key": "lka_A"}, id="one"),
        pytest.param(BY_KEY, {"access_key": "lka_x"}, id="none"),
        pytest.param(BY_TIME, {"after": datetime(2030, 1, 2, tzinfo=UTC), "name": "one"}, id="several"),
    ],
)
async def test_it_answers_what_the_session_would(
    db: SQLAlchemy, keys: None, asked: Prepared[Any], values: dict[str, Any]
) -> None:
    async with db.scoped_session() as session:
        rows = await session.read(asked, values)
        usual = (await session.execute(asked.statement, values)).all()

    assert [tuple(row) for row in rows] == [tuple(row) for row in usual]
    assert len(rows) == {"lka_A": 1, "lka_x": 0}.get(values.get("access_key", ""), 2)


@pytest.mark.parametrize("on_writer", [False, True], ids=["reader", "writer"])
async def test_a_value_that_is_missing_is_an_error(db: SQLAlchemy, keys: None, on_writer: bool) -> None:
    async with db.scoped_session() as session:
        if on_writer:
            await session.connection()
        with pytest.raises(KeyError, match="access_key"):
            await session.read(BY_KEY, {})
        await session.rollback()


@pytest.mark.parametrize("on_writer", [False, True], ids=["reader", "writer"])
@pytest.mark.parametrize(
    ("some", "found"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["lka_b"], ["lka_b"], id="one"),
        pytest.param(("lka_b", "lka_a", "lka_x"), ["lka_a", "lka_b"], id="three"),
        pytest.param({"lka_a", "lka_A", "lka_b", "lka_x", "lka_y"}, ["lka_A", "lka_a", "lka_b"], id="five"),
    ],
)
async def test_it_takes_lists(
    db: SQLAlchemy, keys: None, on_writer: bool, some: Any, found: list[str]
) -> None:
    """The driver does not accept their values without a conversion."""
    async with db.scoped_session() as session:
        if on_writer:
            await session.connection()
        rows = await session.read(IDS, {"some": some, "name": "one"})
        await session.rollback()

    assert [name for (name,) in rows] == found


async def test_lists_of_all_lengths_are_few_statements(db: SQLAlchemy, keys: None) -> None:
    async with db.scoped_session() as session:
        with wire.listening() as commands:
            for length in range(1, 65):
                await session.read(IDS, {"some": ["lka_a"] * length, "name": "one"})

    sent = [one for one in commands if "access_key" in one]  # the first one also opens a connection
    assert (len(sent), len(set(sent))) == (64, 7)


async def test_lists_of_pairs_are_taken(db: SQLAlchemy, keys: None) -> None:
    pairs = tuple_(KEYS.c.access_key, KEYS.c.name).in_(bindparam("pairs", expanding=True))
    asked = Prepared(select(KEYS.c.access_key).where(pairs).order_by(KEYS.c.id))
    async with db.scoped_session() as session:
        rows = await session.read(asked, {"pairs": [("lka_a", "one"), ("lka_b", "two"), ("lka_A", "one")]})

    assert rows == [("lka_a",), ("lka_A",)]


@pytest.mark.parametrize(
    ("some", "error", "says"),
    [
        pytest.param("lka_a", TypeError, "not a str", id="a text"),
        pytest.param(
            ["lka_a"] * 16_385, ValueError, "16,385 values is too long; the maximum is 16,384", id="too many"
        ),
    ],
)
async def test_values_that_are_no_list_or_too_long_are_refused(
    db: SQLAlchemy, some: Any, error: type[Exception], says: str
) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(error, match=says):
            await session.read(IDS, {"some": some, "name": "one"})


async def test_the_longest_list_is_taken(db: SQLAlchemy, keys: None) -> None:
    some = ["lka_a", *(f"lka_{number}" for number in range(16_383))]
    async with db.scoped_session() as session:
        assert await session.read(IDS, {"some": some, "name": "one"}) == [("lka_a",)]


@pytest.mark.parametrize("on_writer", [False, True], ids=["reader", "writer"])
async def test_values_that_stand_in_the_statement_are_sent_with_it(
    db: SQLAlchemy, keys: None, on_writer: bool
) -> None:
    """This includes a percent sign, with both drivers."""
    asked = Prepared(
        select(literal("100 %").label("all"), cast(KEYS.c.name, String(9)).op("LIKE")(text("'o%'")))
        .where(KEYS.c.access_key.in_(["lka_a", "lka_A"]), KEYS.c.name == bindparam("name", "one"))
        .limit(1)
    )
    async with db.scoped_session() as session:
        if on_writer:
            await session.connection()
        found = [await session.read(asked, values) for values in ({}, {"name": "two"})]
        await session.rollback()

    assert found == [[("100 %", 1)], []]


async def test_it_flushes_where_a_select_would(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        user = await User.get(first)
        user.name = "pending"
        seen = [list(await session.read(USER, {"id": first}))]
        session.autoflush = True
        seen += [list(await session.read(USER, {"id": first}))]
        await session.rollback()

    assert seen == [[("first",)], [("pending",)]]


async def test_one_that_locks_goes_to_the_writer(db: SQLAlchemy, first: int) -> None:
    locking = Prepared(USER.statement.with_for_update())
    async with db.scoped_session() as session:
        user = await User.get(first)
        user.name = "pending"
        rows = await session.read(locking, {"id": first})
        assert (list(rows), session.on_writer) == ([("pending",)], True)
        await session.rollback()


async def test_after_a_read_of_entities_it_takes_no_greenlet(
    db: SQLAlchemy, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with db.scoped_session() as session:
        await User.get(first)
        monkeypatch.setattr(session.sync_session, "read", None)  # which runs in one

        assert await session.read(USER, {"id": first}) == [("first",)]


async def test_the_session_of_another_task_is_refused(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(OtherTaskError):
            await asyncio.create_task(session.read(USER, {"id": first}))


async def test_it_costs_one_command_and_holds_nothing_afterwards(db: SQLAlchemy, keys: None) -> None:
    async with db.scoped_session() as session:
        await session.read(USER, {"id": 1})

        with wire.listening() as commands:
            rows = await session.read(USER, {"id": 1})

        assert (len(commands), list(rows), db.checked_out()) == (1, [("first",)], 0)


async def test_an_idle_connection_is_taken_without_a_greenlet(
    db: SQLAlchemy, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creating one costs as much as a query."""
    made = []

    async def spawn(function: Any, *arguments: Any) -> Any:
        made.append(function)
        return await greenlet_spawn(function, *arguments)

    monkeypatch.setattr(prepared, "greenlet_spawn", spawn)
    numbers = []
    for _ in range(2):
        await USER.run(db.reader, {"id": first})
        numbers.append(len(made))

    assert numbers == [1, 1]


async def test_it_waits_for_a_connection_that_another_holds(db: SQLAlchemy, first: int) -> None:
    async with db.reader.connect(), db.reader.connect():  # the pool has two
        reading = asyncio.create_task(USER.run(db.reader, {"id": first}))
        await asyncio.sleep(0.05)
        assert not reading.done()

    assert list(await reading) == [("first",)]
    assert db.checked_out() == 0


async def test_on_the_writer_it_sees_what_was_written(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        user = await User.get(first)
        await user.update(name="changed")

        rows = await session.read(USER, {"id": first})
        await session.rollback()

        assert [tuple(row) for row in rows] == [("changed",)]


async def test_an_ended_session_reads_nothing(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        pass

    with pytest.raises(EndedSessionError):
        await session.read(USER, {"id": first})


async def test_an_error_of_the_database_is_the_usual_one(db: SQLAlchemy) -> None:
    """Its text names the statement and hides the values, and the connection is used again."""
    gone = Prepared(select(func.no_such_function(USERS.c.id)).where(USERS.c.name == bindparam("name")))
    async with db.scoped_session() as session:
        with pytest.raises(DBAPIError) as caught:
            await session.read(gone, {"name": "s3cret"})

    assert not caught.value.connection_invalidated
    assert "no_such_function" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert db.checked_out() == 0


async def connection_ids(db: SQLAlchemy) -> set[int]:
    """Return the server's ids of the pooled reader connections; there is at most one in these tests."""
    async with db.reader.connect() as connection:
        return {(await connection.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one()}


@on_mariadb
async def test_a_connection_that_died_in_the_pool_is_replaced(db: SQLAlchemy, first: int) -> None:
    (dead,) = await connection_ids(db)
    async with db.engine.connect() as other:
        await other.exec_driver_sql(f"KILL {dead}")

    async with db.scoped_session() as session:
        rows = await session.read(USER, {"id": first})

    assert list(rows) == [("first",)]
    assert dead not in await connection_ids(db)


@on_mariadb
@pytest.mark.parametrize("touched", [False, True], ids=["the session's first", "after something else"])
async def test_a_server_that_was_started_anew_costs_no_read(
    db: SQLAlchemy, first: int, touched: bool
) -> None:
    """Every pooled connection is dead then, not only the one that a read happens to take."""
    async with db.reader.connect() as one, db.reader.connect() as two:
        ids = [(await each.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one() for each in (one, two)]
    async with db.engine.connect() as other:
        for dead in ids:
            await other.exec_driver_sql(f"KILL {dead}")

    async def read() -> list[Any]:
        async with db.scoped_session() as session:
            if touched:
                assert session.sync_session.idle
            return list(await session.read(USER, {"id": first}))

    found = await asyncio.gather(*(asyncio.create_task(read()) for _ in range(20)))

    assert found == [[("first",)]] * 20


@on_mariadb
async def test_one_insert_fails_after_a_restart_of_the_server(
    db: SQLAlchemy, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not run again, because its outcome is unknown; the next one gets a live connection.

    Usually the process is notified of the end of a connection, and does not use it.
    """
    monkeypatch.setattr(driver.Connection, "is_dead", False)
    async with db.reader.connect() as one, db.reader.connect() as two:
        ids = [(await each.exec_driver_sql("SELECT CONNECTION_ID()")).scalar_one() for each in (one, two)]
    async with db.engine.connect() as other:
        for dead in ids:
            await other.exec_driver_sql(f"KILL {dead}")

    async with db.reader.connect():  # holds the one of the two that is taken first
        row = {"access_key": "lka_a", "nonce": b"n", "expires_at": datetime(2030, 1, 1, tzinfo=UTC)}
        with pytest.raises(DBAPIError) as caught:
            await NONCE.run(db.reader, row)
        assert caught.value.connection_invalidated

    await NONCE.run(db.reader, row)


@on_mariadb
@pytest.mark.parametrize(
    "in_bulk",
    [
        pytest.param(True, id="in bulk", marks=only_on_mariadb("MySQL has no bulk execution")),
        pytest.param(False, id="as on MySQL"),
    ],
)
async def test_rows_are_inserted_together_or_not_at_all(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch, in_bulk: bool
) -> None:
    if not in_bulk:  # which only MariaDB takes: the driver then writes one INSERT as text

        async def refuse(_statement: object, _rows: object) -> None:
            raise ValueError("not in bulk")

        monkeypatch.setattr(PreparedStatement, "execute_bulk", refuse)

    def row(nonce: bytes) -> dict[str, Any]:
        return {"access_key": "lka_a", "nonce": nonce, "expires_at": datetime(2030, 1, 1, tzinfo=UTC)}

    with wire.listening() as commands:
        await NONCE.insert_together(db.reader, [row(b"1"), row(b"2")])
    (sent,) = [one for one in commands if one.startswith("INSERT")]
    assert sent.count("lka_a") == (0 if in_bulk else 2)
    with pytest.raises(IntegrityError):
        await NONCE.insert_together(db.reader, [row(b"3"), row(b"2"), row(b"4")])

    async with db.reader.connect() as connection:
        found = (await connection.execute(select(Nonce.nonce).order_by(Nonce.nonce))).scalars().all()
    assert found == [b"1", b"2"]
    assert db.checked_out() == 0


@on_mariadb
async def test_a_cancelled_read_costs_its_connection(db: SQLAlchemy) -> None:
    """Its answer may still arrive, and must not be read by another query."""
    slow = Prepared(select(func.sleep(bindparam("seconds"))))
    (before,) = await connection_ids(db)

    async def read() -> None:
        async with db.scoped_session() as session:
            await session.read(slow, {"seconds": 5})

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.2)

    assert db.checked_out() == 0
    assert before not in await connection_ids(db)
