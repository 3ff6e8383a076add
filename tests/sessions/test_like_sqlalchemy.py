"""Each unit of work has the same outcome as with a plain `AsyncSession`, in a block and in an endpoint, on both databases.

The test compares its result or error, the rows of all tables afterwards, and the state of the session and of its
instances before it ends. `DIFFERENCES` are intentional and documented.
"""

import gc
import re
import warnings
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from starlette.requests import Request

from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings
from tests import mysql
from tests.conftest import tables_of
from tests.requests import request as send
from tests.sessions import library, shop
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route
from tests.sessions.units import UNITS, Unit

ADDRESS = re.compile("0x[0-9a-f]+")

DIFFERENCES = {
    "A read takes a connection only while it runs.": {"begin_after_a_read", "get_transaction", "an_add_and_a_read"},
    "A failed commit has been rolled back.": {
        "a_key_of_nobody", "add_a_taken_name", "add_without_a_name", "commit_after_a_failed_flush", "commit_again_after_a_failed_commit"
    },
    "A `before_commit` listener therefore finds no pending changes.": {"a_listener_that_looks_before_a_commit"},
    "`with_for_update()` flushes pending changes first": {"lock_of_a_changed_row"},
    "every operation except `rollback()` raises `BrokenTransactionError`": {
        "work_after_a_failed_flush", "commit_after_a_failed_flush"
    },
}  # fmt: skip
"""Sentences of `docs/sessions.md` about differences from a plain session, with the units that show them."""

DIFFERENCES_ON_SERVERS = {
    "A time that is selected as a parameter is a `datetime` on every server": {"all: a literal time"}
}
DIFFERENCES_ON_MYSQL = {
    "On MySQL, defaults of the database are loaded after a flush.": {"add_and_commit"},
    "MySQL chooses the type of a parameter before it has the value.": {"functions_without_a_select"},
}


class Outcome(msgspec.Struct):
    """The outcome of a unit of work."""

    returned: Any = None
    raised: str | None = None
    session: dict[str, Any] = {}
    instances: list[Any] = []
    rows: dict[str, list[Any]] = {}


@pytest.fixture
async def tables(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(shop.Model.metadata, db):
        yield


@pytest.fixture
async def plain(settings: Settings, tables: None) -> AsyncIterator[AsyncEngine]:
    """Return an engine of SQLAlchemy, independent of Latchkey."""
    is_sqlite = "sqlite" in settings.database_url
    engine = create_async_engine(
        settings.database_url, **({} if is_sqlite else {"isolation_level": "READ COMMITTED"})
    )
    if is_sqlite:

        @event.listens_for(engine.sync_engine, "connect")
        def _enforce(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA foreign_keys=ON")

    yield engine
    await engine.dispose()


async def fill(engine: AsyncEngine) -> None:
    """Empty all tables and write the initial rows for each unit."""
    async with engine.begin() as connection:
        for table in reversed(shop.Model.metadata.sorted_tables):
            if table.name == "like_people":
                await connection.execute(text("UPDATE like_people SET boss_id = NULL"))
            await connection.execute(table.delete())
    async with AsyncSession(engine) as session:
        session.add_all([*shop.rows(), *library.rows()])
        await session.commit()


@pytest.fixture(autouse=True, scope="module")
def few_objects_to_collect() -> None:
    """Leave what exists already out of the collection after each unit, which is fast then."""
    gc.collect()
    gc.freeze()


async def observe(session: AsyncSession, unit: Unit) -> Outcome:
    """Run a unit, and record the state of the session."""
    outcome = Outcome()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome.returned = shown(await unit.run(session))
    except Exception as error:
        said = ADDRESS.sub("0x…", str(error).splitlines()[0])
        outcome.raised = f"{type(error).__module__}.{type(error).__name__}: {said}"
    outcome.session = {
        "new": sorted(map(shown_text, session.new)),
        "dirty": sorted(map(shown_text, session.dirty)),
        "deleted": sorted(map(shown_text, session.deleted)),
        "in_transaction": session.in_transaction(),
        "in_nested_transaction": session.in_nested_transaction(),
        "is_active": session.is_active,
    }
    gc.collect()  # a session drops the instances of a cycle no earlier
    outcome.instances = sorted(shown_text(one) for one in session)
    return outcome


def shown(value: Any) -> Any:
    """Return a value as plain data: an instance by its class and loaded attributes."""
    if isinstance(value, DeclarativeBase):
        state = inspect(value)
        has = {
            name: one.key if isinstance(one, DeclarativeBase) and hasattr(one, "key") else shown_inside(one)
            for name, one in sorted(state.dict.items())
            if name in state.mapper.attrs
        }
        return [type(value).__name__, sorted(has.items())]
    if isinstance(value, dict):
        return {str(name): shown(one) for name, one in value.items()}
    if isinstance(value, Decimal | float):
        return str(value)
    if isinstance(value, str | int | type(None)):
        return value
    if isinstance(value, list | tuple | set) or hasattr(value, "_fields") or hasattr(value, "_asdict"):
        return [shown(one) for one in value]
    return repr(value) if " at 0x" not in repr(value) else type(value).__name__


def shown_inside(value: Any) -> Any:
    """Return an attribute of an instance; other instances are shown by identity only, to avoid infinite recursion."""
    if isinstance(value, DeclarativeBase):
        return [type(value).__name__, str(inspect(value).identity)]
    if isinstance(value, list):
        return [shown_inside(one) for one in value]
    return shown(value)


def shown_text(value: Any) -> str:
    return str(shown(value))


async def contents(engine: AsyncEngine) -> dict[str, list[Any]]:
    """Return the rows of all tables."""
    async with engine.connect() as connection:
        found = {
            table.name: sorted(map(str, await connection.execute(table.select())))
            for table in shop.Model.metadata.sorted_tables
        }
        await connection.rollback()
    return found


async def by_sqlalchemy(engine: AsyncEngine, unit: Unit) -> Outcome:
    await fill(engine)
    async with AsyncSession(engine, expire_on_commit=False, autoflush=False) as session:
        outcome = await observe(session, unit)
    outcome.rows = await contents(engine)
    return outcome


async def in_a_block(db: SQLAlchemy, engine: AsyncEngine, unit: Unit) -> Outcome:
    await fill(engine)
    async with db.scoped_session() as session:
        outcome = await observe(session, unit)
        await (
            session.rollback()
        )  # a plain session drops uncommitted changes, where Latchkey's raises an error
    outcome.rows = await contents(engine)
    return outcome


async def in_an_endpoint(make_app: MakeApp, engine: AsyncEngine, unit: Unit) -> Outcome:
    await fill(engine)
    outcome = Outcome()

    async def endpoint(request: Request) -> int:
        nonlocal outcome
        outcome = await observe(request.state.session, unit)
        await request.state.session.rollback()
        return 1

    answer = await send(make_app(value_route(endpoint, "POST")), "POST", "/probe")
    assert answer.status == 200, answer.body
    outcome.rows = await contents(engine)
    return outcome


def differing(expected: Outcome, found: Outcome, place: str) -> dict[str, Any]:
    """Return the parts of an outcome that differ.

    A session may hold more instances than a plain one, which drops unreferenced ones. After a read in a block no
    transaction is open.
    """
    if place == "block":
        found.session["in_transaction"] = expected.session["in_transaction"]
    if set(expected.instances) <= set(found.instances):
        found.instances = expected.instances
    return {
        part: (getattr(expected, part), getattr(found, part))
        for part in expected.__struct_fields__
        if getattr(found, part) != getattr(expected, part)
    }


@pytest.mark.parametrize("chapter", sorted({unit.chapter for unit in UNITS}))
async def test_it_is_the_same(db: SQLAlchemy, plain: AsyncEngine, make_app: MakeApp, chapter: str) -> None:
    documented = [DIFFERENCES]
    if "sqlite" not in str(plain.url):
        documented += [DIFFERENCES_ON_SERVERS, *([DIFFERENCES_ON_MYSQL] if mysql.is_chosen() else [])]
    meant = {unit for differences in documented for units in differences.values() for unit in units}
    unlike: dict[str, dict[str, Any]] = {}
    for unit in (one for one in UNITS if one.chapter == chapter):
        found = {
            "block": await in_a_block(db, plain, unit),
            "endpoint": await in_an_endpoint(make_app, plain, unit),
        }
        expected = await by_sqlalchemy(plain, unit)
        differs = {place: differing(expected, one, place) for place, one in found.items()}
        if any(differs.values()) != (unit.name in meant):
            unlike[unit.name] = differs
        assert all(one.rows == expected.rows for one in found.values()), f"{unit.name} wrote something else"

    assert unlike == {}, "without a difference: a unit that is listed with one"


def test_every_difference_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/sessions.md").read_text()

    sentences = (*DIFFERENCES, *DIFFERENCES_ON_SERVERS, *DIFFERENCES_ON_MYSQL)
    assert [sentence for sentence in sentences if sentence not in page] == []


def test_there_are_enough() -> None:
    assert len({unit.name for unit in UNITS}) == len(UNITS) >= 250
