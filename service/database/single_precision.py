"""FLOAT columns of MariaDB and MySQL, with the same value in both protocols.

A server writes a FLOAT as text with six digits, or with the decimals that its column declares. For a prepared
statement it sends the four bytes instead, and 0.1 becomes 0.10000000149011612. Values of prepared statements are
rounded to the value of the text.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from asyncmy.constants.FIELD_TYPE import FLOAT
from sqlalchemy.dialects.mysql.asyncmy import MySQLDialect_asyncmy
from sqlalchemy.ext.asyncio import AsyncEngine

NO_DECIMALS = 31  # of a column that declares none, in the column definition of the protocol

Processor = Callable[[Any], Any]


def as_text(value: float | None, decimals: int = NO_DECIMALS) -> float | None:
    """Return the number that the server would write as text.

    >>> as_text(0.10000000149011612)
    0.1
    >>> as_text(12345.678711, 4)
    12345.6787
    """
    if value is None:
        return None
    return float(f"{value:.6g}") if decimals >= NO_DECIMALS else round(value, decimals)


Context: Any = MySQLDialect_asyncmy.execution_ctx_cls


class ReadingContext(Context):  # type: ignore[misc]  # its base is an attribute of the dialect
    """An execution that rounds FLOAT columns as the text protocol does, with or without declared types."""

    def get_result_processor(self, type_: Any, colname: str, coltype: Any) -> Processor | None:
        """Return the conversion of the driver's value of one column."""
        process: Processor | None = super().get_result_processor(type_, colname, coltype)
        if coltype != FLOAT:
            return process
        met: dict[str, int] = self.__dict__.setdefault("latchkey_floats", {})  # a name may appear twice
        met[colname] = place = met.get(colname, -1) + 1
        declared = decimals_of(self.cursor.description, colname)
        decimals = declared[place] if place < len(declared) else NO_DECIMALS
        return chained(partial(as_text, decimals=decimals), process)


def decimals_of(description: Sequence[Sequence[Any]], name: str) -> list[int]:
    """Return the declared decimals of each FLOAT column with a name, given the description of a cursor."""
    return [int(one[5]) for one in description if one[0] == name and one[1] == FLOAT]


def chained(first: Processor, second: Processor | None) -> Processor:
    """Return a processor that applies both."""
    if second is None:
        return first
    return lambda value: second(first(value))


def read_floats_as_text(engine: AsyncEngine) -> None:
    """Make an engine of asyncmy round FLOAT columns as the text protocol does."""
    engine.sync_engine.dialect.execution_ctx_cls = ReadingContext


def with_floats_as_text(
    converts: Sequence[Processor | None], decimals: Mapping[int, int | None]
) -> list[Processor | None]:
    """Return the conversions of columns, with those of FLOAT columns added, for use outside an execution.

    Args:
        converts: the conversion of each column; None means no conversion.
        decimals: the declared decimals of FLOAT columns by their place; None for a column that turned out not to be one.
    """
    found = list(converts)
    for place, declared in decimals.items():
        if declared is not None:
            found[place] = chained(partial(as_text, decimals=declared), found[place])
    return found
