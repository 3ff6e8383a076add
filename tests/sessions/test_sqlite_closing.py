"""R6: every SQLite connection is closed by its thread, whatever is cancelled at whatever moment."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.database import sqlite
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings
from tests.sqlite import PATIENCE_S, WatchedConnection, assert_closed, watched_connection

STEPS = 60  # of the loop; connecting and disconnecting takes about 30


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[WatchedConnection]:
    watched = watched_connection()
    monkeypatch.setattr(sqlite, "RollingBackConnection", watched)
    return watched


@pytest.fixture
async def engine(watched: type[WatchedConnection], tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """Return an engine on a file in WAL mode: changing the mode would wait for statements that are not collected yet."""
    with contextlib.closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    engine = create_engines(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/some.db")).writer
    yield engine
    await engine.dispose()
    await assert_closed(watched)


@pytest.fixture(autouse=True)
def every_thread_ends() -> Iterator[None]:
    """Assert that every thread ends: one that waits for ever is a leak, too."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


async def every_task_ends(before: set[asyncio.Task[Any]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.001)


class SlowlyOpened:
    """`sqlite3.connect`, which waits until the test continues."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self._connect: Callable[..., sqlite3.Connection] = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", self)

    def __call__(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        self.reached.set()
        assert self.released.wait(PATIENCE_S)
        return self._connect(*arguments, **options)

    async def reach(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.reached.is_set():
                await asyncio.sleep(0.001)


async def use(engine: AsyncEngine) -> None:
    """Connect, query, and drop the connection as a cancelled request does."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.invalidate()


class TestCancelledWhileOpening:
    async def test_a_connection_that_the_thread_opens_afterwards_is_closed(
        self, engine: AsyncEngine, watched: type[WatchedConnection], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opening = SlowlyOpened(monkeypatch)
        task = asyncio.create_task(use(engine))
        await opening.reach()

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        opening.released.set()
        async with asyncio.timeout(PATIENCE_S):
            while not watched.closed_by:
                await asyncio.sleep(0.001)

        assert watched.closed_by == [True]
        assert watched.still_open == []

    async def test_a_connection_that_the_task_never_received_is_closed(
        self, engine: AsyncEngine, watched: type[WatchedConnection], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The result and the cancellation arrive in the same step of the loop."""
        opening = SlowlyOpened(monkeypatch)
        task = asyncio.create_task(use(engine))
        await opening.reach()
        opening.released.set()
        while not watched.still_open:  # without a step of the loop
            pass

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await assert_closed(watched)
        assert watched.closed_by == [True]

    def test_a_connection_is_closed_when_the_loop_has_ended_before(
        self, watched: type[WatchedConnection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The thread cannot return its result: pytest would fail the test for an error in the thread."""
        opening = SlowlyOpened(monkeypatch)

        async def leave() -> None:
            connection = sqlite.Connection(f"{tmp_path}/some.db", factory=watched)
            asyncio.get_running_loop().create_task(connection._connect())
            connection._thread.start()
            threads.append(connection._thread)
            await opening.reach()

        threads: list[threading.Thread] = []
        asyncio.run(leave())
        opening.released.set()
        threads[0].join(PATIENCE_S)

        assert not threads[0].is_alive()
        assert watched.closed_by == [True]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancellation_at_any_step_leaves_nothing_open(
    engine: AsyncEngine, watched: type[WatchedConnection], times: int
) -> None:
    """It is cancelled twice: the second time while the connection is closed because of the first."""
    cancelled = 0
    before = asyncio.all_tasks()
    for n in range(STEPS):
        task = asyncio.create_task(use(engine))
        for _ in range(n):
            await asyncio.sleep(0.0002)  # the thread continues meanwhile
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        cancelled += task.cancelled()
        await every_task_ends(before)
        await engine.dispose()  # connections that were returned normally

        await assert_closed(watched)

    assert cancelled > 0
    assert len(watched.closed_by) > cancelled / 2


class TestClosing:
    async def open(self, watched: type[WatchedConnection], tmp_path: Path) -> aiosqlite.Connection:
        return await sqlite.Connection(f"{tmp_path}/some.db", factory=watched)

    async def test_closing_twice_or_during_a_close_does_not_hang(
        self, watched: type[WatchedConnection], tmp_path: Path
    ) -> None:
        connection = await self.open(watched, tmp_path)

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(connection.close(), connection.close())
            connection.stop()
            await connection.close()

        assert watched.closed_by == [True]

    async def test_closing_continues_when_the_waiting_task_is_cancelled(
        self, watched: type[WatchedConnection], tmp_path: Path
    ) -> None:
        connection = await self.open(watched, tmp_path)
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)

        closing.cancel()
        await asyncio.wait([closing])

        await assert_closed(watched)

    async def test_closing_completes_although_the_rollback_fails(
        self, watched: type[WatchedConnection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_connection: WatchedConnection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(watched, "rollback", fail)
        connection = await self.open(watched, tmp_path)
        await connection.execute("BEGIN")

        await connection.close()

        assert watched.closed_by == [True]
