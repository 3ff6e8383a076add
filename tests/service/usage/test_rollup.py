"""Old counts become hours and days; no call is lost or counted twice on the way."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from latchkey.models import UsageCount
from latchkey.models.usage import DAY, HOUR, MINUTE
from latchkey.service.database import SQLAlchemy
from latchkey.service.housekeeping import purge
from latchkey.service.usage import rollup
from latchkey.service.usage.rollup import Ages
from latchkey.service.usage.store import add, count_row
from tests.conftest import table_of

AGES = Ages(minutes=timedelta(hours=6), hours=timedelta(days=14), days=timedelta(days=400))
NOW = int(datetime.now(UTC).timestamp()) // 60
TODAY = NOW - NOW % DAY


async def fill(db: SQLAlchemy, *rows: tuple[int, ...]) -> None:
    """Insert rows of: length, key, start, series, calls; each call has 2 units."""
    async with db.engine.begin() as connection:
        values = [count_row(*row, 2 * row[-1]) for row in rows]
        await connection.execute(insert(table_of(UsageCount)), values)


async def found(db: SQLAlchemy) -> dict[tuple[int, int, int, int], int]:
    """Return the calls by the primary key; each call must have 2 units."""
    async with db.reader.connect() as connection:
        rows = (await connection.execute(select(table_of(UsageCount)))).all()
    assert all(row.units == 2 * row.calls for row in rows)
    return {(row.minutes, row.key_id, row.start, row.series_id): row.calls for row in rows}


async def test_minutes_become_hours_and_hours_become_days(db: SQLAlchemy) -> None:
    old_hour, old_day = NOW - 8 * HOUR - (NOW % HOUR), TODAY - 20 * DAY
    await fill(
        db,
        *[(MINUTE, 1, old_hour + minute, 1, 1) for minute in range(60)],
        (MINUTE, 1, old_hour + 5, 2, 7),
        (HOUR, 1, old_hour, 1, 1000),
        (MINUTE, 2, NOW - 60, 1, 5),
        *[(HOUR, 2, old_day + 60 * hour, 1, 2) for hour in range(24)],
        (MINUTE, 3, old_day + 90, 1, 3),
        (HOUR, 3, TODAY - 10 * DAY, 1, 4),
        (DAY, 3, TODAY - 399 * DAY, 1, 8),
        (DAY, 3, TODAY - 401 * DAY, 1, 9),
    )

    gone = await purge(db.engine, usage_ages=AGES)

    assert gone is not None
    assert gone["usage_counts"] == 60 + 1 + 24 + 2 + 1
    assert await found(db) == {
        (HOUR, 1, old_hour, 1): 1060,
        (HOUR, 1, old_hour, 2): 7,
        (MINUTE, 2, NOW - 60, 1): 5,
        (DAY, 2, old_day, 1): 48,
        (DAY, 3, old_day, 1): 3,
        (HOUR, 3, TODAY - 10 * DAY, 1): 4,
        (DAY, 3, TODAY - 399 * DAY, 1): 8,
    }
    assert (await purge(db.engine, usage_ages=AGES) or {})["usage_counts"] == 0


@pytest.mark.parametrize("batch", [1, 7, 1000])
async def test_batches_do_not_change_the_sums(
    db: SQLAlchemy, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "BATCH_ROWS", batch)
    monkeypatch.setattr(rollup, "PAUSE_S", 0)
    begin = TODAY - 2 * DAY
    await fill(
        db,
        *[
            (MINUTE, key, begin + 37 * number, series, 1)
            for key in range(3)
            for number in range(8)
            for series in (1, 2)
        ],
        (MINUTE, 1, NOW - 1, 1, 1),
    )

    await purge(db.engine, usage_ages=AGES)

    rows = await found(db)
    assert sum(rows.values()) == 3 * 8 * 2 + 1
    assert Counter(minutes for minutes, *_ in rows) == {HOUR: 3 * 5 * 2, MINUTE: 1}


async def test_a_flush_that_comes_meanwhile_is_not_lost(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was without its database adds to old minutes while they are rolled up."""
    monkeypatch.setattr(rollup, "BATCH_ROWS", 2)
    begin = TODAY - 2 * DAY
    await fill(db, *[(MINUTE, key, begin, 1, 1) for key in range(10)])
    sleep = asyncio.sleep

    async def flush_late(seconds: float) -> None:
        async with db.engine.begin() as connection:
            await add(connection, [count_row(MINUTE, key, begin + key % 2, 1, 1, 2) for key in range(10)])
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", flush_late)
    gone = await purge(db.engine, usage_ages=AGES)
    monkeypatch.undo()
    rows = await found(db)
    flushes = (sum(rows.values()) - 10) // 10
    await purge(db.engine, usage_ages=AGES)

    assert gone is not None
    assert flushes >= 5
    assert await found(db) == {(HOUR, key, begin, 1): 1 + flushes for key in range(10)}


@pytest.mark.parametrize("hours", [-1000, 1000], ids=["behind", "ahead"])
async def test_a_wrong_clock_of_this_process_removes_nothing(db: SQLAlchemy, hours: int) -> None:
    rows: Any = [(MINUTE, 1, NOW - 60, 1, 1), (DAY, 1, TODAY - 390 * DAY, 1, 1)]
    await fill(db, *rows)

    await purge(db.engine, usage_ages=AGES, clock=lambda: datetime.now(UTC) + timedelta(hours=hours))

    assert len(await found(db)) == 2
