"""FLOAT columns of MariaDB and MySQL, read alike by both of their protocols.

A server writes a FLOAT as text with six digits, or with the decimals that its column declares. A prepared statement is
answered with the four bytes instead, and 0.1 becomes 0.10000000149011612. What is read from a prepared statement is
rounded to what the text would have been.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from asyncmy.constants.FIELD_TYPE import FLOAT
from sqlalchemy.dialects.mysql.asyncmy import MySQLDialect_asyncmy
from sqlalchemy.ext.asyncio import AsyncEngine

NO_DECIMALS = 31  # that a column has which declares none, as in the column definition of the protocol

Processor = Callable[[Any], Any]


def as_text(value: float | None, decimals: int = NO_DECIMALS) -> float | None:
    """Return the number that the server would have written as text.

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
    """An execution that reads FLOAT columns as text would have them, whether the statement declares types or not."""

    def get_result_processor(self, type_: Any, colname: str, coltype: Any) -> Processor | None:
        """Return what is made of the driver's value of one column."""
        process: Processor | None = super().get_result_processor(type_, colname, coltype)
        if coltype != FLOAT:
            return process
        met: dict[str, int] = self.__dict__.setdefault("latchkey_floats", {})  # a name may be there twice
        met[colname] = place = met.get(colname, -1) + 1
        declared = decimals_of(self.cursor.description, colname)
        decimals = declared[place] if place < len(declared) else NO_DECIMALS
        return chained(partial(as_text, decimals=decimals), process)


def decimals_of(description: Sequence[Sequence[Any]], name: str) -> list[int]:
    """Return how many decimals each FLOAT column of a name declares, given the description of a cursor."""
    return [int(one[5]) for one in description if one[0] == name and one[1] == FLOAT]


def chained(first: Processor, second: Processor | None) -> Processor:
    """Return a processor that applies both."""
    if second is None:
        return first
    return lambda value: second(first(value))


def read_floats_as_text(engine: AsyncEngine) -> None:
    """Have an engine of asyncmy's read FLOAT columns as text would have them."""
    engine.sync_engine.dialect.execution_ctx_cls = ReadingContext


def with_floats_as_text(
    converts: Sequence[Processor | None], decimals: Mapping[int, int | None]
) -> list[Processor | None]:
    """Return the processors of columns, of which some are FLOAT, outside of an execution.

    Args:
        converts: what is made of the driver's value of each column; None is nothing.
        decimals: how many decimals the FLOAT columns declare, by their place; None of what turned out to be no FLOAT.
    """
    found = list(converts)
    for place, declared in decimals.items():
        if declared is not None:
            found[place] = chained(partial(as_text, decimals=declared), found[place])
    return found
