"""Write counted calls to the database, each batch exactly once.

A worker numbers its batches. The number is stored in the transaction of the batch, so a batch whose COMMIT got no answer is
sent again with the same number, and is not counted again if the first COMMIT took effect.
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
from sqlalchemy import CursorResult, Table, bindparam, insert, select, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import UsageCount, UsageFlush
from latchkey.models.types import utc_in
from latchkey.models.usage import MINUTE
from latchkey.service.usage.series import Series, SeriesNumbers

MARK_KEPT_S = 31 * 24 * 60 * 60  # 31 days: how long a batch may be sent again

ROWS_OF_A_STATEMENT = 200

Cell = tuple[int, int, Series]
"""A minute since 1970, the id of a key, and a series."""
Cells = Mapping[Cell, list[int]]
"""The number of calls, and the sum of their units."""

_counts = cast("Table", UsageCount.__table__)
_flushes = cast("Table", UsageFlush.__table__)

_ADVANCE = (
    update(_flushes)
    .where(_flushes.c.worker == bindparam("own"), _flushes.c.number == bindparam("next") - 1)
    .values(number=bindparam("next"), expires_at=utc_in(MARK_KEPT_S))
)
_LAST = select(_flushes.c.number).where(_flushes.c.worker == bindparam("own"))


class Batch(msgspec.Struct, frozen=True):
    """Counted calls that are written together."""

    number: int
    """1 for the first batch of a worker, and one more for each later one."""
    cells: Cells


class Store:
    """The database as one worker writes to it.

    Args:
        transactional: returns the engine for the batches.
        autocommit: returns the engine for the numbers of series.
    """

    def __init__(
        self, transactional: Callable[[], AsyncEngine], autocommit: Callable[[], AsyncEngine]
    ) -> None:
        self.worker = uuid.uuid4().bytes
        self._transactional = transactional
        self._autocommit = autocommit
        self._numbers = SeriesNumbers()

    async def write(self, batch: Batch) -> None:
        """Add a batch to the counts; nothing happens if it was added already.

        Raises:
            DBAPIError, sqlalchemy.exc.TimeoutError: the batch is not stored, or it is unknown whether it is.
        """
        async with self._autocommit().connect() as connection:
            owned = {(key_id, series) for _, key_id, series in batch.cells}
            numbers = await self._numbers.find(connection, owned)
        rows: dict[tuple[int, int, int], list[int]] = {}
        for (minute, key_id, series), (calls, units) in batch.cells.items():
            row = rows.setdefault((key_id, minute, numbers[key_id, series]), [0, 0])
            row[0] += calls
            row[1] += units
        async with self._transactional().begin() as connection:
            # First, because this lock makes a batch that is sent again wait for the end of its first transaction.
            if await take_number(connection, self.worker, batch.number):
                # In the order of the primary key, so that two workers cannot wait for each other.
                await add(
                    connection,
                    [
                        count_row(MINUTE, key_id, minute, number, *added)
                        for (key_id, minute, number), added in sorted(rows.items())
                    ],
                )


async def take_number(connection: AsyncConnection, worker: bytes, number: int) -> bool:
    """Mark a batch as added; return False if it was marked before."""
    advanced = cast("CursorResult[Any]", await connection.execute(_ADVANCE, {"own": worker, "next": number}))
    if advanced.rowcount:
        return True
    last = (await connection.execute(_LAST, {"own": worker})).scalar()
    if last is not None and last >= number:
        return False
    # The first batch, or the first after a pause in which the mark has expired.
    mark = {"worker": worker, "number": number, "expires_at": utc_in(MARK_KEPT_S)}
    await connection.execute(insert(_flushes).values(mark))
    return True


def count_row(*values: int) -> dict[str, int]:
    """Return a row from its values, in the order of the columns."""
    return dict(zip(_counts.c.keys(), values, strict=True))


async def add(connection: AsyncConnection, rows: list[dict[str, int]]) -> None:
    """Insert rows, or add their numbers to those of existing rows."""
    if not rows:
        return
    dialect = connection.dialect
    statement = _ADD[dialect.name]
    if dialect.name != "mysql" or getattr(dialect, "is_mariadb", False):
        await connection.execute(statement, rows)
        return
    # The driver would send one statement for each row to MySQL, which has no bulk execution.
    for first in range(0, len(rows), ROWS_OF_A_STATEMENT):
        await connection.execute(statement.values(rows[first : first + ROWS_OF_A_STATEMENT]))


def _add_on_sqlite() -> Any:
    statement = sqlite.insert(_counts)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(_counts.primary_key),
        set_={"calls": _counts.c.calls + new.calls, "units": _counts.c.units + new.units},
    )


def _add_on_mysql() -> Any:
    statement = mysql.insert(_counts)
    new = statement.inserted
    return statement.on_duplicate_key_update(
        calls=_counts.c.calls + new.calls, units=_counts.c.units + new.units
    )


_ADD = {"sqlite": _add_on_sqlite(), "mysql": _add_on_mysql(), "mariadb": _add_on_mysql()}
