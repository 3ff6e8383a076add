"""The pool of connections serves its waiters in order, within bounds, and loses no connection."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from latchkey.middleware.request_scope import RequestScope
from latchkey.service.database import pool as module
from latchkey.service.database.pool import FairPool

Opening = Callable[..., AsyncEngine]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opening]:
    """Open engines, and assert afterwards that every connection was returned."""
    engines = []

    def open_engine(size: int, timeout_s: float = 5.0) -> AsyncEngine:
        engines.append(
            create_async_engine(
                f"sqlite+aiosqlite:///{tmp_path}/pool.db",
                poolclass=FairPool,
                pool_size=size,
                max_overflow=0,
                pool_timeout=timeout_s,
            )
        )
        return engines[-1]

    yield open_engine
    for engine in engines:
        assert pool_of(engine).checkedout() == 0
        assert not pool_of(engine)._waiters
        assert pool_of(engine)._promised == 0
        assert pool_of(engine)._bulkhead.is_empty
        assert not pool_of(engine)._holders
        await engine.dispose()


async def noop() -> None:
    """Return at once."""


def pool_of(engine: AsyncEngine) -> FairPool:
    assert isinstance(engine.pool, FairPool)
    return engine.pool


async def take(engine: AsyncEngine, number: int) -> list[AsyncConnection]:
    return [await engine.connect() for _ in range(number)]


async def of_row(engine: AsyncEngine, row: str, work: Callable[[], Awaitable[Any]]) -> None:
    """Work on a connection in a request that changes a row."""
    task = asyncio.current_task()
    assert task is not None
    with RequestScope(task) as request_scope:
        request_scope.compartments = (("row", row),)
        async with engine.connect():
            await work()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def queue(
    engine: AsyncEngine, work: Callable[[int], Awaitable[Any]], number: int
) -> list[asyncio.Task[Any]]:
    """Start tasks that each wait for a connection, in their order."""
    before = len(pool_of(engine)._waiters)
    tasks = []
    for one in range(number):
        tasks.append(asyncio.ensure_future(work(one)))
        await until(lambda: len(pool_of(engine)._waiters) == before + len(tasks))
    return tasks


async def test_the_first_to_wait_is_the_first_served(opened: Opening) -> None:
    engine = opened(1)
    served: list[Any] = []

    async def work(name: Any) -> None:
        async with engine.connect():
            served.append(name)
            await asyncio.sleep(0.001)

    (held,) = await take(engine, 1)
    waiting = await queue(engine, work, 5)
    closing = asyncio.ensure_future(held.close())
    newcomers = [asyncio.ensure_future(work("newcomer")) for _ in range(20)]
    await asyncio.gather(closing, *waiting, *newcomers)

    assert served == [*range(5), *["newcomer"] * 20]


async def test_a_connection_that_comes_late_does_not_come(opened: Opening) -> None:
    engine = opened(1, timeout_s=0.05)
    (held,) = await take(engine, 1)

    with pytest.raises(exc.TimeoutError, match=r"none of 1 connections was returned within 0\.05 s"):
        await engine.connect()
    await held.close()

    (again,) = await take(engine, 1)
    await again.close()


async def test_a_pause_of_the_process_does_not_count_as_a_wait(opened: Opening) -> None:
    engine = opened(1, timeout_s=0.05)
    (held,) = await take(engine, 1)
    statement = asyncio.ensure_future(held.exec_driver_sql("SELECT 1"))
    served: list[int] = []

    async def work(number: int) -> None:
        async with engine.connect():
            served.append(number)

    waiting = await queue(engine, work, 3)
    time.sleep(0.3)  # noqa: ASYNC251 - the pause
    await statement
    await held.close()
    await asyncio.gather(*waiting)

    assert served == [0, 1, 2]


async def test_the_queue_has_an_end(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITERS_PER_CONNECTION", 2)
    engine = opened(2)
    held = await take(engine, 2)

    async def work(_number: int) -> None:
        async with engine.connect():
            pass

    waiting = await queue(engine, work, 4)
    with pytest.raises(exc.TimeoutError, match="4 callers are waiting"):
        await engine.connect()
    for one in held:
        await one.close()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("after", range(6))
async def test_a_waiter_that_is_cancelled_passes_its_connection_on(opened: Opening, after: int) -> None:
    """At every step after the connection was returned."""
    engine = opened(1)
    served = []

    async def work(number: int) -> None:
        async with engine.connect():
            served.append(number)

    (held,) = await take(engine, 1)
    first, second = await queue(engine, work, 2)
    closing = asyncio.ensure_future(held.close())
    await until(lambda: len(pool_of(engine)._waiters) < 2)
    for _ in range(after):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, second, closing, return_exceptions=True)

    assert served[-1] == 1
    assert not second.cancelled()


async def test_a_waiter_that_is_cancelled_before_its_turn_is_forgotten(opened: Opening) -> None:
    engine = opened(1)

    async def work(number: int) -> int:
        async with engine.connect():
            return number

    (held,) = await take(engine, 1)
    first, second = await queue(engine, work, 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert len(pool_of(engine)._waiters) == 1
    await held.close()

    assert await second == 1


async def test_a_waiter_opens_a_connection_when_another_one_could_not(opened: Opening) -> None:
    engine = opened(1)
    began, refuse = asyncio.Event(), asyncio.Event()

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(*_arguments: Any) -> None:
        if not began.is_set():
            began.set()
            await_only(refuse.wait())
            raise OSError("refused")

    async def work(number: int) -> int:
        async with engine.connect():
            return number

    first = asyncio.ensure_future(work(0))
    await began.wait()
    waiting = await queue(engine, work, 3)
    refuse.set()

    with pytest.raises(OSError, match="refused"):
        await first
    assert await asyncio.gather(*waiting) == [0, 1, 2]


async def test_a_connection_that_is_dropped_is_replaced_for_the_next_waiter(opened: Opening) -> None:
    engine = opened(1)

    async def work(number: int) -> int:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
            return number

    (held,) = await take(engine, 1)
    waiting = await queue(engine, work, 3)
    await held.invalidate()
    await held.close()

    assert await asyncio.gather(*waiting) == [0, 1, 2]


async def test_requests_for_one_row_hold_a_part_of_it(opened: Opening) -> None:
    engine = opened(8)
    release = asyncio.Event()
    blocked = [asyncio.ensure_future(of_row(engine, "locked", release.wait)) for _ in range(20)]
    await until(lambda: pool_of(engine).checkedout() == 2 and len(pool_of(engine)._waiters) == 18)

    async with asyncio.timeout(1):
        await asyncio.gather(*(of_row(engine, f"row {number}", noop) for number in range(20)))
    held = pool_of(engine).checkedout()
    release.set()
    await asyncio.gather(*blocked)

    assert held == 2


async def test_a_waiter_is_passed_over_while_its_row_is_locked(opened: Opening) -> None:
    engine = opened(3)
    release = asyncio.Event()
    blocked = [asyncio.ensure_future(of_row(engine, "locked", release.wait)) for _ in range(2)]
    await until(lambda: pool_of(engine).checkedout() == 2)
    held = await engine.connect()
    blocked.append(asyncio.ensure_future(of_row(engine, "locked", release.wait)))
    await until(lambda: len(pool_of(engine)._waiters) == 1)
    other = asyncio.ensure_future(of_row(engine, "other", noop))
    await until(lambda: len(pool_of(engine)._waiters) == 2)

    await held.close()
    async with asyncio.timeout(1):
        await other
    assert len(pool_of(engine)._waiters) == 1
    release.set()
    await asyncio.gather(*blocked)


async def test_a_request_does_not_wait_for_itself(opened: Opening) -> None:
    engine = opened(8)

    async def take_more() -> None:
        async with asyncio.timeout(1), engine.connect(), engine.connect():
            await meeting.wait()

    meeting = asyncio.Barrier(2)
    await asyncio.gather(*(of_row(engine, "row", take_more) for _ in range(2)))


async def test_requests_for_one_row_take_a_part_of_the_queue(
    opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITERS_PER_CONNECTION", 2)
    engine = opened(8)
    release = asyncio.Event()
    blocked = [asyncio.ensure_future(of_row(engine, "locked", release.wait)) for _ in range(6)]
    await until(lambda: len(pool_of(engine)._waiters) == 4)

    with pytest.raises(exc.TimeoutError, match="4 callers are waiting"):
        await of_row(engine, "locked", noop)
    await of_row(engine, "other", noop)
    release.set()
    await asyncio.gather(*blocked)


async def test_a_waiter_that_gave_up_leaves_its_row(opened: Opening) -> None:
    engine = opened(8, timeout_s=0.05)
    release = asyncio.Event()
    blocked = [asyncio.ensure_future(of_row(engine, "locked", release.wait)) for _ in range(4)]

    with pytest.raises(exc.TimeoutError):
        await blocked[2]
    blocked[3].cancel()
    release.set()
    await asyncio.gather(*blocked, return_exceptions=True)
    await of_row(engine, "locked", noop)


async def test_the_pool_logs_as_sqlalchemys_pool_does(
    opened: Opening, caplog: pytest.LogCaptureFixture
) -> None:
    """This includes the errors about connections that the garbage collector had to clean up."""
    engine = opened(1)

    with caplog.at_level(logging.INFO, "sqlalchemy.pool"):
        await engine.dispose()

    assert {record.name for record in caplog.records} == {"sqlalchemy.pool.FairPool"}
