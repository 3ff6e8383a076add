"""Round decimals to the scale of their columns, in the same way on every server.

MariaDB and MySQL round half away from zero when they store a decimal, and SQLite rounds what it reads, as a binary
float. The value is rounded before it is written, so that a row that was written equals the row that is read.
"""

import math
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import partial
from typing import Any

from sqlalchemy import Column, Float, Numeric
from sqlalchemy.orm import ColumnProperty, Mapper
from sqlalchemy.types import TypeEngine

Rounding = Callable[[Any], Any]

WIDE = Context(prec=100)  # a decimal of MariaDB and MySQL has at most 65 digits


def roundings_of(mapper: Mapper[Any]) -> Mapping[str, Rounding]:
    """Return the roundings of the attributes whose columns have a scale."""
    columns = {one.key: one.columns[0] for one in mapper.attrs if isinstance(one, ColumnProperty)}
    found = {name: rounding_of(column.type) for name, column in columns.items() if isinstance(column, Column)}
    return {name: rounding for name, rounding in found.items() if rounding is not None}


def rounding_of(kind: TypeEngine[Any]) -> Rounding | None:
    """Return the rounding of a type; None for any type but `Numeric` with a precision, whose scale is 0 by default.

    An attribute that is read as a float is not exact, and keeps what was assigned, as in any session.
    """
    if not isinstance(kind, Numeric) or isinstance(kind, Float):
        return None
    if kind.precision is None or not kind.asdecimal:
        return None
    scale = kind.scale or 0
    most: Decimal = Decimal(10) ** (kind.precision - scale)
    return partial(rounded, Decimal(1).scaleb(-scale), most)


def rounded(step: Decimal, most: Decimal, value: Any) -> Any:
    """Return a number as its column holds it; a value that is no number, or out of range, is returned unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    if not math.isfinite(value) or not -most < value < most:
        return value
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return exact.quantize(step, rounding=ROUND_HALF_UP, context=WIDE)
