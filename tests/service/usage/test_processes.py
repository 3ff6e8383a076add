"""Usage adds up to the calls that clients made, over several processes; `kill -9` loses at most one interval.

The long form, `make test-usage`, makes 100,000 calls over four workers, and measures the size of a year of usage.
"""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, text
from starlette.applications import Starlette

from latchkey.models import UsageCount, UsageSeries
from latchkey.models.usage import DAY, HOUR, MINUTE, NO_KEY
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings
from latchkey.service.usage.store import add, count_row
from tests.api import HeldKey, hold_key
from tests.conftest import on_mariadb
from tests.processes import Served

IS_LONG = os.environ.get("LATCHKEY_TEST_USAGE") == "long"
CALLS, WORKERS = (100_000, 4) if IS_LONG else (2_000, 2)
CLIENTS = 16
FLUSH_S = 0.4
SLACK_S = 0.4  # a flush, and a busy machine

Call = tuple[int, str, int]
"""The id of a key, a route and a status."""


def say(sentence: str) -> None:
    """Print a figure; `make test-usage` shows it."""
    sys.stdout.write(f"\n{sentence}\n")


@asynccontextmanager
async def serving(app: Starlette, settings: Settings, folder: Path, *arguments: str) -> AsyncIterator[Served]:
    """Serve the database of an application, in further processes."""
    environ = {
        "LATCHKEY_DATABASE_URL": settings.database_url,
        "LATCHKEY_KEYRING": settings.keyring or "",
        "LATCHKEY_USAGE_FLUSH_S": str(FLUSH_S),
    }
    served = Served(folder, "serve", *arguments, environ=environ)
    await asyncio.to_thread(served.__enter__)
    try:
        yield served
    finally:
        await asyncio.to_thread(served.__exit__)
    assert "Traceback" not in served.err.read_text()


async def converse(
    served: Served, calls: Sequence[tuple[Call, str, HeldKey | None]], answered: Callable[[Call], None]
) -> None:
    """Make calls one after another on one connection, until it breaks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        for expected, path, key in calls:
            bearer = f"Authorization: {key.bearer[1]}\r\n" if key else ""
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(
                line.partition(":")[2] for line in head.split("\r\n") if line.startswith("content-length:")
            )
            await reader.readexactly(int(length))
            assert int(head.split(" ")[1]) == expected[2]
            answered(expected)
    finally:
        writer.close()


async def stored(app: Starlette) -> Counter[Call]:
    """Return the stored calls, without those by which the test waits for the server."""
    statement = (
        select(UsageCount.key_id, UsageSeries.route, UsageSeries.status, UsageCount.calls)
        .join(UsageSeries, UsageSeries.id == UsageCount.series_id)
        .where(UsageSeries.route != "GET /healthz")
    )
    found: Counter[Call] = Counter()
    async with app.state.db.reader.connect() as connection:
        for *call, number in await connection.execute(statement):
            found[call[0], call[1], call[2]] += number
    return found


@on_mariadb
async def test_usage_of_several_processes_adds_up_to_the_calls(
    app: Starlette, settings: Settings, tmp_path: Path
) -> None:
    keys = [await hold_key(app, email=f"{number}@example.com") for number in range(5)]
    kinds: list[tuple[Call, str, HeldKey | None]] = [
        *(((key.id, "GET /v1/me", 200), "/v1/me", key) for key in keys),
        *(((key.id, "GET /v1/users/{id}", 404), "/v1/users/99999", key) for key in keys),
        ((NO_KEY, "(unknown path)", 404), "/nothing", None),
    ]
    made: Counter[Call] = Counter()

    async with serving(app, settings, tmp_path, "--workers", str(WORKERS)) as served:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as clients:
            for client in range(CLIENTS):
                mine = [kinds[number % len(kinds)] for number in range(client, CALLS, CLIENTS)]
                clients.create_task(converse(served, mine, lambda call: made.update([call])))
        say(f"{made.total()} calls over {WORKERS} workers in {time.perf_counter() - began:.1f} s")
        assert await asyncio.to_thread(served.stop) == 0

    assert made.total() == CALLS
    assert await stored(app) == made


@on_mariadb
async def test_a_killed_process_loses_at_most_one_interval(
    app: Starlette, settings: Settings, tmp_path: Path
) -> None:
    key = await hold_key(app)
    call: Call = (key.id, "GET /v1/me", 200)
    times: list[float] = []

    async with serving(app, settings, tmp_path) as served:
        clients = [
            asyncio.create_task(
                converse(served, [(call, "/v1/me", key)] * 100_000, lambda _: times.append(time.monotonic()))
            )
            for _ in range(4)
        ]
        await asyncio.sleep(3 * FLUSH_S)
        killed_at = time.monotonic()
        await asyncio.to_thread(served.stop, signal.SIGKILL)
        await asyncio.wait(clients)

    counted = (await stored(app))[call]
    earlier = sum(moment < killed_at - FLUSH_S - SLACK_S for moment in times)
    say(f"answered: {len(times)}, counted: {counted}, answered before the last interval: {earlier}")
    assert all(isinstance(client.exception(), (EOFError, OSError)) for client in clients)
    assert 0 < earlier <= counted <= len(times) + len(clients)


YEAR_KEYS = 10_000
SAMPLE = 20  # one key of 20 is measured
PERIODS = ((DAY, 400, 3), (HOUR, 14 * 24, 2), (MINUTE, 7 * 60, 1))
"""The length of a period, how many are kept, and the number of series in which each key is called in each period."""


@pytest.mark.skipif(not IS_LONG, reason="it takes minutes: make test-usage")
async def test_a_year_of_ten_thousand_keys_is_below_two_gib(db: SQLAlchemy) -> None:
    """Rows are inserted in the order of time, as by flushes and the roll-up, so that pages split as they do there."""
    empty = await size_of(db)
    rows = 0
    for length, kept, series in PERIODS:
        for period in range(kept):
            batch = [
                count_row(length, key, 29_000_000 + period * length, number, 123_456, 123_456)
                for key in range(YEAR_KEYS // SAMPLE)
                for number in range(series)
            ]
            async with db.engine.begin() as connection:
                await add(connection, batch)
            rows += len(batch)

    used = await size_of(db) - empty
    year = used * SAMPLE
    say(
        f"{db.engine.dialect.name}: {rows} rows, {used / rows:.1f} bytes a row; "
        f"{rows * SAMPLE / 1e6:.1f} million rows of a year take {year / 2**30:.2f} GiB"
    )
    assert year < 2 * 2**30


async def size_of(db: SQLAlchemy) -> int:
    """Return the bytes of the counts, or of the SQLite file."""
    async with db.reader.connect() as connection:
        if db.engine.dialect.name == "sqlite":
            pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
            return int(pages * (await connection.execute(text("PRAGMA page_size"))).scalar_one())
        await connection.execute(text("ANALYZE TABLE usage_counts"))
        found = await connection.execute(
            text(
                "SELECT data_length + index_length FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND table_name = 'usage_counts'"
            )
        )
        return int(found.scalar_one())
