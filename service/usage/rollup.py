"""Roll old counts up, from minutes to hours to days, and delete the oldest, in batches."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec
from sqlalchemy import Row, Table, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import UsageCount
from latchkey.models.lookups import identified
from latchkey.models.types import utc_now
from latchkey.models.usage import DAY, HOUR, MINUTE
from latchkey.service.settings import Settings
from latchkey.service.usage.store import add, count_row

BATCH_ROWS = 1000
PAUSE_S = 0.02  # between two batches, so that other writers can proceed

_counts = cast("Table", UsageCount.__table__)

# The rows of a key before the end are all removed, so the next batch begins at the key of the last row.
_OLD = (
    select(_counts)
    .where(
        _counts.c.minutes == bindparam("length"),
        _counts.c.key_id >= bindparam("first"),
        _counts.c.start < bindparam("end"),
    )
    .order_by(*_counts.primary_key)
    .limit(bindparam("rows"))
    .with_for_update()  # a late flush must not add to a row between its copy and its end
)


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """How long counts are kept by minute, by hour and by day."""

    minutes: timedelta
    hours: timedelta
    days: timedelta

    @classmethod
    def of(cls, settings: Settings) -> "Ages":
        """Return the ages of the settings."""
        return cls(
            minutes=timedelta(hours=settings.usage_minutes_kept_hours),
            hours=timedelta(days=settings.usage_hours_kept_days),
            days=timedelta(days=settings.usage_days_kept_days),
        )


async def roll_up(
    connection: AsyncConnection, ages: Ages, moment: datetime, report: Callable[[str, int], None]
) -> int:
    """Roll up and delete old counts; return the number of removed rows.

    The sums stay the same: a batch is removed in the transaction that adds it to longer periods.

    Args:
        connection: each batch is a transaction on it.
        ages: how long counts are kept.
        moment: the time of this process; counts must be old by this clock and by the database's.
        report: called after each batch with the table and the number of its rows removed so far.
    """
    of_database: datetime = (await connection.execute(select(utc_now()))).scalar_one()
    await connection.rollback()
    now = min(moment, of_database)
    gone = 0
    for length, longer, age in (
        (MINUTE, HOUR, ages.minutes),
        (HOUR, DAY, ages.hours),
        (DAY, None, ages.days),
    ):
        end = start_of(now - age, longer or DAY)
        first: int | None = 0
        while first is not None:
            rows = (
                await connection.execute(
                    _OLD, {"length": length, "first": first, "end": end, "rows": BATCH_ROWS}
                )
            ).all()
            if rows:
                await move(connection, rows, longer)
            await connection.commit()
            gone += len(rows)
            first = rows[-1].key_id if len(rows) == BATCH_ROWS else None
            if rows:
                report(_counts.name, gone)
                await asyncio.sleep(PAUSE_S)
    return gone


async def move(connection: AsyncConnection, rows: Sequence[Row[Any]], longer: int | None) -> None:
    """Add rows to those of longer periods, if there are any, and delete them."""
    if longer is not None:
        sums: dict[tuple[int, int, int], list[int]] = {}
        for row in rows:
            place = (row.key_id, row.start - row.start % longer, row.series_id)
            added = sums.setdefault(place, [0, 0])
            added[0] += row.calls
            added[1] += row.units
        await add(connection, [count_row(longer, *place, *sums[place]) for place in sorted(sums)])
    # The range of keys bounds what a server reads that does not look up a list of tuples by the index.
    await connection.execute(
        delete(_counts).where(
            _counts.c.minutes == rows[0].minutes,
            _counts.c.key_id.between(rows[0].key_id, rows[-1].key_id),
            identified(UsageCount, [tuple(row[:4]) for row in rows]),
        )
    )


def start_of(moment: datetime, length: int) -> int:
    """Return the start of the period that contains a time, in minutes since 1970."""
    minute = int(moment.astimezone(UTC).timestamp()) // 60
    return minute - minute % length
