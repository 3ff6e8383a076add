"""R6: a block in an async generator ends in the task that opened it, even if the generator is left early."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import select, text

from latchkey.middleware.session_errors import EndedSessionError, UnwrittenWorkError
from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.session import RequestSession
from tests.conftest import assert_nothing_left, on_mariadb


@pytest.fixture
async def two(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        for name in ("first", "second"):
            await User.create(email=f"{name}@example.com", name=name)
        await session.commit()


async def names(db: SQLAlchemy) -> AsyncGenerator[str]:
    """Yield in the middle of a block."""
    async with db.scoped_session() as session:
        async for name in await session.stream_scalars(text("SELECT name FROM users ORDER BY id")):
            yield name


async def emails(db: SQLAlchemy) -> list[str]:
    async with db.reader.connect() as connection:
        return sorted((await connection.execute(select(User.email))).scalars())


async def settle(db: SQLAlchemy) -> None:
    """Wait until the loop has closed the generators that the garbage collector found."""
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    await assert_nothing_left(db)


@pytest.mark.usefixtures("two")
async def test_one_that_is_read_to_its_end_is_as_any_block(db: SQLAlchemy) -> None:
    assert [name async for name in names(db)] == ["first", "second"]
    await assert_nothing_left(db)


@pytest.mark.usefixtures("two")
async def test_after_one_that_was_left_early_the_task_works_on(db: SQLAlchemy) -> None:
    async with asyncio.timeout(15):
        for number in range(4):  # more than the pool has connections
            async for name in names(db):
                assert name == "first"
                break
            await User.create(email=f"{number}@example.com", name="after", auto_commit=True)
        await settle(db)

    assert len(await emails(db)) == 6


@pytest.mark.usefixtures("two")
async def test_one_that_is_left_early_and_kept_ends_with_its_task(db: SQLAlchemy) -> None:
    kept = []

    async def leave() -> None:
        generator = names(db)
        kept.append(generator)
        await anext(generator)

    await asyncio.create_task(leave())
    await settle(db)
    await kept[0].aclose()


@pytest.mark.usefixtures("two")
async def test_one_that_another_task_closes_ends_the_block_and_no_call(db: SQLAlchemy) -> None:
    """The last running call ends the session, and its commit is kept."""
    held: list[RequestSession] = []

    async def hold() -> AsyncGenerator[int]:
        async with db.scoped_session() as session:
            held.append(session)
            yield 1

    generator = hold()
    await anext(generator)
    closing = asyncio.create_task(generator.aclose())
    await User.create(email="new@example.com", name="new", auto_commit=True)
    await closing

    assert "new@example.com" in await emails(db)
    with pytest.raises(EndedSessionError):
        await held[0].execute(select(User))
    await settle(db)


@pytest.mark.usefixtures("two")
async def test_uncommitted_work_of_the_last_call_is_an_error(db: SQLAlchemy) -> None:
    async def hold() -> AsyncGenerator[int]:
        async with db.scoped_session():
            yield 1

    generator = hold()
    await anext(generator)
    closing = asyncio.create_task(generator.aclose())
    with pytest.raises(UnwrittenWorkError, match=r"contextlib\.aclosing"):
        await User.create(email="new@example.com", name="new")
    await closing

    assert len(await emails(db)) == 2
    await settle(db)


@on_mariadb
@pytest.mark.usefixtures("two")
async def test_a_statement_that_runs_is_waited_for(db: SQLAlchemy) -> None:
    async def hold() -> AsyncGenerator[RequestSession]:
        async with db.scoped_session() as session:
            yield session

    generator = hold()
    session = await anext(generator)
    closing = asyncio.create_task(generator.aclose())
    assert await session.scalar(text("SELECT SLEEP(0.1)")) == 0
    await closing
    await settle(db)


@pytest.mark.usefixtures("two")
async def test_uncommitted_work_of_the_generator_is_an_error(db: SQLAlchemy) -> None:
    async def write() -> AsyncGenerator[int]:
        async with db.scoped_session():
            await User.create(email="new@example.com", name="new")
            yield 1

    generator = write()
    await anext(generator)
    with pytest.raises(UnwrittenWorkError, match=r"contextlib\.aclosing"):
        await asyncio.create_task(generator.aclose())

    assert len(await emails(db)) == 2
    await settle(db)


@pytest.mark.usefixtures("two")
async def test_aclosing_closes_it_in_time(db: SQLAlchemy) -> None:
    async with contextlib.aclosing(names(db)) as generator:
        assert await anext(generator) == "first"
    assert not db.scoped_session.registry.registry
    assert db.checked_out() == 0
