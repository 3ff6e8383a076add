"""Ranges of a table, so that a search in all of its rows consists of short statements."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import ColumnElement, and_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

SLICE_ROWS = 2000


async def slices(
    connection: AsyncConnection, column: Any, *conditions: ColumnElement[bool]
) -> AsyncIterator[ColumnElement[bool]]:
    """Yield conditions that together match each row once, by ranges of a unique column.

    Args:
        connection: reads where a range ends.
        column: the primary key of the table.
        conditions: restrict the rows; an index has to serve them together with `column`.
    """
    after: ColumnElement[bool] = true()
    while True:
        last = select(column).where(after, *conditions).order_by(column).offset(SLICE_ROWS - 1).limit(1)
        end = (await connection.execute(last)).scalar()
        if end is None:
            yield and_(after, *conditions)
            return
        yield and_(after, column <= end, *conditions)
        after = column > end
