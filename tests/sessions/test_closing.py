"""R6 and R12: a session is closed however its request ends, and the database however the application ends."""

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import inspect
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from latchkey.middleware.session_errors import EndedSessionError, UnwrittenWorkError
from latchkey.models import Base, User
from latchkey.models.errors import NotInitialisedError
from latchkey.service import database
from latchkey.service.database import DatabaseNotOpenError, SQLAlchemy
from latchkey.service.settings import Settings
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import response_route, value_route
from tests.sessions.test_settling import count


async def test_an_exception_rolls_back_and_is_answered_and_logged_once(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async def fall(request: Request) -> None:
        await User.create(email="a@b", name="n")
        raise KeyError("a secret of the endpoint")

    answer = await request(
        make_app(value_route(fall, "POST")), "POST", "/probe", headers={"x-request-id": "r-1"}
    )

    assert (answer.status, answer.json["code"], answer.json["request_id"]) == (500, "internal_error", "r-1")
    assert b"secret" not in answer.body
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert await count(db) == 0


async def test_an_exception_after_the_start_goes_on_to_the_server(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    async def break_off(request: Request) -> Response:
        async def parts() -> Any:
            await User.get(first)
            yield b"one"
            raise KeyError("in the middle")

        return StreamingResponse(parts())

    with pytest.raises(KeyError):
        await request(make_app(response_route(break_off)), "GET", "/probe")


async def test_leaving_a_session_with_unwritten_work_is_an_error(db: SQLAlchemy) -> None:
    """Outside requests the session is not committed automatically; without an error the row would be lost silently."""
    with pytest.raises(UnwrittenWorkError, match="without committing User"):
        async with db.scoped_session() as session:
            session.add(User(email="a@b", name="n"))

    with pytest.raises(UnwrittenWorkError, match="what it wrote"):
        async with db.scoped_session() as session:
            await User.create(email="a@b", name="n")

    assert await count(db) == 0


async def test_an_exception_is_not_hidden_by_the_work_that_it_leaves(db: SQLAlchemy) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.scoped_session():
            await User.create(email="a@b", name="n")
            raise ZeroDivisionError


async def test_a_session_that_has_ended_takes_no_more_statements(db: SQLAlchemy, first: int) -> None:
    """It would take a connection that is never returned."""
    async with db.scoped_session() as session:
        user = (await User.get(first)).set_session(session)

    with pytest.raises(EndedSessionError, match="open another one"):
        await user.update(name="late")
    for add in (session.add, lambda late: session.add_all([late])):
        late = User(email="late@example.com", name="late")
        with pytest.raises(EndedSessionError):
            add(late)
        assert inspect(late).transient
    assert db.checked_out() == 0


async def test_rolling_back_by_hand_leaves_in_peace(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        session.add(User(email="a@b", name="n"))
        await session.rollback()

    assert await count(db) == 0


async def test_a_bare_session_closes_with_its_task(db: SQLAlchemy, first: int) -> None:
    """`scoped_session()` without `async with`: SQLAlchemy's registry would keep it for ever."""

    async def read() -> Any:
        return (await db.scoped_session().get(User, first)).name

    assert await asyncio.create_task(read()) == "first"
    for _ in range(3):
        await asyncio.sleep(0)
    assert db.scoped_session.registry.registry == {}


async def test_a_bare_session_that_was_not_used_makes_nothing(db: SQLAlchemy) -> None:
    met: list[Any] = []

    async def open_one() -> None:
        met.append(db.scoped_session())

    await asyncio.create_task(open_one())
    for _ in range(3):
        await asyncio.sleep(0)

    assert met[0].untouched
    assert db.scoped_session.registry.registry == {}


async def test_a_bare_session_that_leaves_work_is_logged(
    db: SQLAlchemy, caplog: pytest.LogCaptureFixture
) -> None:
    async def write() -> None:
        db.scoped_session().add(User(email="a@b", name="n"))
        await db.scoped_session().flush()

    await asyncio.create_task(write(), name="careless")
    await asyncio.sleep(0.05)

    assert "'careless' ended without committing" in caplog.text
    assert await count(db) == 0
    assert db.checked_out() == 0


async def test_closing_waits_for_what_is_still_ending(settings: Settings, caplog: Any) -> None:
    """R12: a request that the server has cancelled without waiting for it."""
    caplog.set_level(logging.INFO, "latchkey")
    db = SQLAlchemy()
    db.init_app(None, settings)

    async def linger() -> None:
        async with db.scoped_session() as session:
            try:
                await session.connection()
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0.05)
                await session.rollback()

    task = asyncio.create_task(linger())
    while not db.checked_out():
        await asyncio.sleep(0.01)
    task.cancel()
    await db.close()

    assert task.done()
    assert caplog.messages[-1] == "DB disconnected."
    assert not any(record.levelname == "ERROR" for record in caplog.records)


async def test_closing_is_bounded_and_names_what_is_still_out(
    settings: Settings, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12."""
    monkeypatch.setattr(database, "CLOSE_DEADLINE_S", 0.05)
    db = SQLAlchemy()
    db.init_app(None, settings)
    release = asyncio.Event()

    async def hold() -> None:
        async with db.scoped_session() as session:
            await session.connection()
            await release.wait()
            await session.invalidate()  # its pool was disposed

    task = asyncio.create_task(hold(), name="holder")
    while not db.checked_out():
        await asyncio.sleep(0.01)
    await db.close()
    release.set()
    await task

    assert "1 connections still checked out; sessions of ['holder']" in caplog.text


async def test_before_init_app_and_after_close_everything_says_so(settings: Settings) -> None:
    db = SQLAlchemy()
    for name in ("engine", "reader", "replica", "scoped_session"):
        with pytest.raises(DatabaseNotOpenError, match="init_app"):
            getattr(db, name)
    with pytest.raises(NotInitialisedError, match="init_app"):
        await User.get(1)

    db.init_app(None, settings)
    with pytest.raises(RuntimeError, match="open already"):
        db.init_app(None, settings)
    assert Base.scoped_session is db.scoped_session
    await db.close()
    await db.close()

    assert Base.scoped_session is None
    with pytest.raises(DatabaseNotOpenError):
        _ = db.engine
    db.init_app(None, settings)
    await db.close()


def test_there_is_one_of_it() -> None:
    assert SQLAlchemy() is SQLAlchemy()


async def test_get_db_rolls_back_logs_and_raises_on(db: SQLAlchemy, caplog: Any) -> None:
    injected = db.session()
    session = await anext(injected)
    await User.create(email="a@b", name="n")

    with pytest.raises(ZeroDivisionError):
        await injected.athrow(ZeroDivisionError())  # type: ignore[attr-defined]  # it is a generator

    assert session.sync_session.in_transaction() is False
    assert await count(db) == 0
    assert "rolled back after ZeroDivisionError" in caplog.text
