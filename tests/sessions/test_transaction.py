"""The record of a session's work is kept for each transaction and SAVEPOINT, and ends with it (R4, R6, R10)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Sequence, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, MissingGreenlet
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.requests import Request

from latchkey.middleware.session_errors import (
    ChildWriteError,
    ForeignBindError,
    OpenWriteError,
    UnwrittenWorkError,
)
from latchkey.models import User
from latchkey.models.errors import NotLoadedError
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.session import RequestSession
from tests.conftest import loading, on_mariadb, only_on_mariadb, table_of
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route

pytestmark = pytest.mark.usefixtures("first")

Work = Callable[[RequestSession], Awaitable[Any]]


async def names(db: SQLAlchemy) -> list[str]:
    async with db.scoped_session() as session:
        return list(await session.scalars(select(User.name).order_by(User.id)))


# ---------------------------------------------------------------------- SAVEPOINTs


async def fail_inside(session: RequestSession) -> None:
    """Write, then insert a duplicate that its SAVEPOINT rolls back."""
    await User.create(email="third@example.com", name="third", session=session)
    with pytest.raises(IntegrityError):
        async with session.begin_nested():
            session.add(User(email="FIRST@example.com", name="double"))
            await session.flush()


async def test_a_flush_that_fails_in_a_savepoint_leaves_the_write_before_it(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    """In a block the write is reported as uncommitted; in a request it is committed, and the changed instance is answered."""
    with pytest.raises(UnwrittenWorkError):
        async with db.scoped_session() as session:
            await fail_inside(session)

    async def skip(request: Request) -> str:
        changed = await User.get(1, session=request.state.session)
        changed.name = "changed"
        await fail_inside(request.state.session)
        return changed.name

    answer = await request(make_app(value_route(skip, "POST")), "POST", "/probe")

    assert answer.json == {"seen": "changed"}
    assert await names(db) == ["changed", "second", "third"]


async def test_a_child_whose_flush_failed_in_a_savepoint_still_lost_what_it_wrote(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    async def parent(request: Request) -> None:
        async def child() -> None:
            await fail_inside(db.scoped_session())

        await asyncio.create_task(child())

    answer = await request(make_app(value_route(parent, "POST")), "POST", "/probe")

    assert answer.status == 500
    assert await names(db) == ["first", "second"]


async def test_a_savepoint_that_was_rolled_back_by_hand_is_no_lost_work(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    async def give_up(session: RequestSession) -> str | None:
        nested = await session.begin_nested()
        await User.create(email="third@example.com", name="third", session=session)
        inner = await session.begin_nested()
        await session.execute(update(User).values(name="x"))
        await inner.commit()
        await nested.rollback()
        return session.unwritten

    async with db.scoped_session() as session:
        assert await give_up(session) is None

    async def ask(request: Request) -> Any:
        return await give_up(request.state.session)

    assert (await request(make_app(value_route(ask, "POST")), "POST", "/probe")).json == {"seen": None}
    assert await names(db) == ["first", "second"]


async def test_a_savepoint_that_was_released_is_work_of_the_transaction(db: SQLAlchemy) -> None:
    with pytest.raises(UnwrittenWorkError):
        async with db.scoped_session() as session, session.begin_nested():
            session.add(User(email="third@example.com", name="third"))


# ---------------------------------------------------------------------- writes by any way

WAYS: dict[str, Work] = {}


def way(function: Work) -> Work:
    WAYS[(function.__doc__ or "").rstrip(".")] = function
    return function


RENAME = "UPDATE users SET name = 'x'"


@way
async def _(session: RequestSession) -> None:
    """A statement on the connection."""
    await (await session.connection()).execute(update(User).values(name="x"))


@way
async def _(session: RequestSession) -> None:
    """Text on the connection."""
    await (await session.connection()).execute(text(RENAME))


@way
async def _(session: RequestSession) -> None:
    """The driver's SQL."""
    await (await session.connection()).exec_driver_sql(RENAME)


@way
async def _(session: RequestSession) -> None:
    """The connection of run_sync."""
    await session.run_sync(lambda inner: inner.connection().exec_driver_sql(RENAME))


@way
async def _(session: RequestSession) -> None:
    """A function on the synchronous connection."""
    connection = await session.connection()
    await connection.run_sync(lambda inner: inner.exec_driver_sql(RENAME))


@way
async def _(session: RequestSession) -> None:
    """A SAVEPOINT of the connection."""
    connection = await session.connection()
    async with connection.begin_nested():
        await connection.exec_driver_sql(RENAME)


@way
async def _(session: RequestSession) -> None:
    """Text that begins with a subquery."""
    await session.execute(text("WITH x AS (SELECT 1) " + RENAME) if is_sqlite(session) else text(RENAME))


@way
async def _(session: RequestSession) -> None:
    """A bulk method of the session."""
    await session.run_sync(lambda inner: inner.bulk_update_mappings(User, [{"id": 1, "name": "x"}]))


@way
async def _(session: RequestSession) -> None:
    """Bulk saved instances."""
    await session.run_sync(lambda inner: inner.bulk_save_objects([User(email="b@example.com", name="b")]))


@way
async def _(session: RequestSession) -> None:
    """The old query object."""
    await session.run_sync(lambda inner: inner.query(User).update({"name": "x"}))


def is_sqlite(session: RequestSession) -> bool:
    return session.rules.engines.writer.dialect.name == "sqlite"


@pytest.mark.parametrize("work", WAYS.values(), ids=WAYS)
async def test_a_write_by_any_way_is_missed_in_a_block(db: SQLAlchemy, work: Work) -> None:
    with pytest.raises(UnwrittenWorkError, match="without committing"):
        async with db.scoped_session() as session:
            await work(session)


@pytest.mark.parametrize("work", WAYS.values(), ids=WAYS)
async def test_a_write_by_any_way_is_committed_with_the_answer(
    db: SQLAlchemy, make_app: MakeApp, work: Work
) -> None:
    before = await names(db)

    async def change(request: Request) -> None:
        await work(request.state.session)

    for method in ("GET", "POST"):
        answer = await request(make_app(value_route(change, method)), method, "/probe")
        assert answer.status in {200, 409}  # one of them inserts the same row again
    assert await names(db) != before


@pytest.mark.parametrize("work", WAYS.values(), ids=WAYS)
async def test_a_write_by_any_way_is_missed_in_a_child(db: SQLAlchemy, make_app: MakeApp, work: Work) -> None:
    async def child() -> None:
        await work(db.scoped_session())

    async def parent(request: Request) -> None:
        await asyncio.create_task(child())

    for method in ("GET", "POST"):
        answer = await request(make_app(value_route(parent, method)), method, "/probe")
        assert answer.status == 500
    assert await names(db) == ["first", "second"]


@pytest.mark.parametrize("work", WAYS.values(), ids=WAYS)
async def test_a_write_by_any_way_is_refused_to_a_child_of_a_request_that_writes(
    db: SQLAlchemy, make_app: MakeApp, work: Work
) -> None:
    """The request holds the writer, for which the child would wait."""

    async def parent(request: Request) -> str:
        await User.create(email="third@example.com", name="third")
        with pytest.raises(ChildWriteError):
            await asyncio.create_task(child())
        return "refused"

    async def child() -> None:
        await work(db.scoped_session())

    answer = await request(make_app(value_route(parent, "POST")), "POST", "/probe")
    assert answer.json == {"seen": "refused"}
    assert await names(db) == ["first", "second", "third"]


@on_mariadb
async def test_a_statement_of_unknown_effect_is_no_lost_work_and_stays_open(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    async def doubt(session: RequestSession) -> str | None:
        await session.execute(text("SELECT 1 INTO @latchkey"))
        assert session.on_writer
        with pytest.raises(OpenWriteError):
            await session.release_connection()
        return session.unwritten

    async with db.scoped_session() as session:
        assert await doubt(session) is None

    async def ask(request: Request) -> str | None:
        return await doubt(request.state.session)

    for method in ("GET", "POST"):
        assert (await request(make_app(value_route(ask, method)), method, "/probe")).json == {"seen": None}


async def test_a_connection_that_only_reads_is_no_lost_work(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        connection = await session.connection()
        (await connection.execute(select(User.id))).all()
        (await connection.exec_driver_sql("SELECT 1")).all()


# ---------------------------------------------------------------------- get_bind and other engines


async def test_get_bind_looks_and_changes_nothing(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        for clause in (None, select(User), insert(User), text("UPDATE users SET name = 'x'")):
            session.get_bind(clause=clause)
            assert not session.on_writer
            assert session.unwritten is None
            assert not session.in_transaction()
        await session.scalars(select(User))
        assert not session.on_writer


async def test_asking_for_the_bind_of_a_child_s_write_is_no_write(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def parent(request: Request) -> str:
        await User.create(email="third@example.com", name="third")

        async def child() -> str:
            session = db.scoped_session()
            session.get_bind(clause=insert(User))
            return str((await session.get(User, 1)).name)

        return await asyncio.create_task(child())

    assert (await request(make_app(value_route(parent, "POST")), "POST", "/probe")).json == {"seen": "first"}


ELSEWHERE = create_engine("sqlite://")
ELSEWHERE_ASYNC = create_async_engine("sqlite+aiosqlite://")


async def awaited(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


FOREIGN: dict[str, Work] = {
    "a mapper": lambda session: session.run_sync(lambda inner: inner.bind_mapper(User, ELSEWHERE)),
    "a table": lambda session: session.run_sync(lambda inner: inner.bind_table(table_of(User), ELSEWHERE)),
    "a mapper of the session": lambda session: awaited(session.bind_mapper, User, ELSEWHERE_ASYNC),
    "a table of the session": lambda session: awaited(session.bind_table, table_of(User), ELSEWHERE_ASYNC),
    "an attribute": lambda session: awaited(setattr, session, "bind", ELSEWHERE_ASYNC),
    "an attribute inside": lambda session: session.run_sync(lambda inner: setattr(inner, "bind", ELSEWHERE)),
    "no engine": lambda session: awaited(setattr, session, "bind", None),
    "a statement": lambda session: session.execute(select(User), bind_arguments={"bind": ELSEWHERE}),
    "a scalar": lambda session: session.scalar(select(User), bind_arguments={"bind": ELSEWHERE}),
    "a connection": lambda session: session.connection(bind_arguments={"bind": ELSEWHERE}),
}


@pytest.mark.parametrize("bind", FOREIGN.values(), ids=FOREIGN)
async def test_another_engine_is_refused_by_name(db: SQLAlchemy, make_app: MakeApp, bind: Work) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(ForeignBindError, match="open a session of its own"):
            await bind(session)

    async def ask(request: Request) -> str:
        with pytest.raises(ForeignBindError):
            await bind(request.state.session)
        return "refused"

    for method in ("GET", "POST"):
        answer = await request(make_app(value_route(ask, method)), method, "/probe")
        assert answer.json == {"seen": "refused"}


@pytest.mark.parametrize(
    "arguments", [{"bind": ELSEWHERE}, {"binds": {User: ELSEWHERE}}], ids=["bind", "binds"]
)
async def test_a_session_of_other_engines_is_refused_by_name(db: SQLAlchemy, arguments: Any) -> None:
    with pytest.raises(ForeignBindError):
        db.scoped_session(**arguments)

    assert not db.scoped_session.registry.has()


async def test_an_engine_of_ours_may_be_named(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        for engine in (db.reader, db.engine):
            found = await session.scalar(select(User.id), bind_arguments={"bind": engine.sync_engine})
            assert found == 1
        assert session.on_writer


@pytest.mark.parametrize("name", ["execute", "scalar", "scalars"])
async def test_a_statement_outside_of_an_await_takes_no_connection(db: SQLAlchemy, name: str) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(MissingGreenlet, match=r"await session\.run_sync\(function\)"):
            getattr(session.sync_session, name)(select(User))
        assert db.checked_out() == 0
        assert await session.scalar(select(User.id)) == 1


# ---------------------------------------------------------------------- rollback and commit


async def test_a_rollback_expires_what_was_read(db: SQLAlchemy, make_app: MakeApp) -> None:
    """As in any session, even though the reader's connection was already released."""

    async def read_and_roll_back(session: RequestSession) -> bool:
        user = await session.get(User, 1)
        await session.rollback()
        assert inspect(user).expired
        with pytest.raises(NotLoadedError, match=r"User\.name"):
            user.name  # noqa: B018 - reading is the test
        await session.refresh(user)
        return user.name == "first"

    async with db.scoped_session() as session:
        assert await read_and_roll_back(session)

    async def ask(request: Request) -> bool:
        return await read_and_roll_back(request.state.session)

    for method in ("GET", "POST"):
        assert (await request(make_app(value_route(ask, method)), method, "/probe")).json == {"seen": True}


async def test_a_rollback_right_after_a_commit_expires_nothing(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        user = await session.get(User, 1)
        await session.commit()
        await session.rollback()

        assert user.name == "first"


async def test_a_commit_after_reads_alone_tells_who_listens(db: SQLAlchemy) -> None:
    told = []
    async with db.scoped_session() as session:
        for name in ("before_commit", "after_commit"):
            event.listen(session.sync_session, name, lambda _session, name=name: told.append(name))
        await session.get(User, 1)
        await session.commit()

    assert told == ["before_commit", "after_commit"]


# ---------------------------------------------------------------------- listeners and options


async def test_a_create_is_heard_by_whoever_listens_to_its_engine(db: SQLAlchemy, database_url: str) -> None:
    heard: list[str] = []

    def before(_connection: Any, clause: Any, *_more: Any) -> None:
        heard.append(f"before {type(clause).__name__}")

    def after(_connection: Any, clause: Any, *_more: Any) -> None:
        heard.append(f"after {type(clause).__name__}")

    event.listen(db.engine.sync_engine, "before_execute", before)
    event.listen(db.engine.sync_engine, "after_execute", after)
    await User.create(email="third@example.com", name="third", auto_commit=True)

    # The last one is the audit event.
    kinds = [kind.title() for kind in ("INSERT", *loading(database_url), "INSERT")]
    assert heard == [f"{when} {kind}" for kind in kinds for when in ("before", "after")]


async def test_a_create_goes_where_the_session_s_options_say(db: SQLAlchemy, make_app: MakeApp) -> None:
    """A tenant's row is written to the tenant's schema, which does not exist here."""

    async def create(session: RequestSession) -> str:
        await session.connection(execution_options={"schema_translate_map": {None: "tenant"}})
        with pytest.raises(DBAPIError, match="tenant"):
            await User.create(email="third@example.com", name="third", session=session)
        await session.rollback()
        return "elsewhere"

    async with db.scoped_session() as session:
        assert await create(session) == "elsewhere"

    async def ask(request: Request) -> str:
        return await create(request.state.session)

    answer = await request(make_app(value_route(ask, "POST")), "POST", "/probe")
    assert answer.json == {"seen": "elsewhere"}
    assert await names(db) == ["first", "second"]


@only_on_mariadb("MySQL has no sequences")
@on_mariadb
async def test_a_sequence_is_a_scalar(db: SQLAlchemy, make_app: MakeApp) -> None:
    counter = Sequence("counter")
    async with db.engine.begin() as connection:
        await connection.execute(text("CREATE OR REPLACE SEQUENCE counter"))

    async with db.scoped_session() as session:
        seen = [await session.scalar(counter), await session.scalar(select(counter.next_value()))]

    async def ask(request: Request) -> int | None:
        found: int | None = await request.state.session.scalar(counter)
        return found

    for method in ("GET", "POST"):
        seen.append((await request(make_app(value_route(ask, method)), method, "/probe")).json["seen"])
    async with db.engine.begin() as connection:
        await connection.execute(text("DROP SEQUENCE counter"))

    assert seen == sorted(set(seen))
    assert len(seen) == 4


async def test_a_failed_insert_wants_its_transaction_rolled_back(db: SQLAlchemy) -> None:
    """Otherwise the earlier write would be lost silently."""
    async with db.scoped_session() as session:
        await User.create(email="before@example.com", name="before")
        double = User(email="first@example.com", name="again")
        session.add(double)
        with pytest.raises(IntegrityError) as caught:
            await session.flush()
        assert "first@example.com" not in str(caught.value).replace(str(caught.value.orig), "")
        assert inspect(double).transient
        await session.rollback()
        await User.create(email="anew@example.com", name="anew")
        await session.commit()

    assert await names(db) == ["first", "second", "anew"]
