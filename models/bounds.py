"""Refuse values that do not fit their columns before they are written, in the same way on every server.

MariaDB and MySQL refuse a text that is too long or a number that is out of range; SQLite stores it. The bounds are those of
the column's type on MariaDB and MySQL.
"""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import ColumnProperty, Mapper
from sqlalchemy.types import Enum, TypeDecorator, TypeEngine

from latchkey.models.errors import InvalidValueError
from latchkey.models.rounding import Rounding, roundings_of

Check = Callable[[Any], str | None]
"""Returns what is wrong with a value, without the value, or None."""

MYSQL = mysql.dialect()
BLOB_BYTES = 2**16 - 1  # a TEXT or a BLOB
SINGLE_MAXIMUM = 3.402823466e38  # a FLOAT of four bytes
BITS: Mapping[type[TypeEngine[Any]], int] = {
    mysql.TINYINT: 8,
    mysql.MEDIUMINT: 24,
    SmallInteger: 16,
    BigInteger: 64,
    Integer: 32,
}
"""The first class that a type is an instance of determines its size."""
LOWEST, HIGHEST = -(2**63), 2**63 - 1
BEYOND = f"the value is out of range; it must be from {LOWEST} to {HIGHEST}"
WIDE = (mysql.MEDIUMTEXT, mysql.LONGTEXT, mysql.MEDIUMBLOB, mysql.LONGBLOB)
NARROW = (mysql.TINYTEXT, mysql.TINYBLOB)

_bounds: WeakKeyDictionary[Mapper[Any], tuple[Mapping[str, Check], Mapping[str, Rounding]]] = (
    WeakKeyDictionary()
)


def fitted(mapper: Mapper[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that their columns hold otherwise, which are decimals; SQL expressions are left out.

    Raises:
        InvalidValueError: a value is too long, out of range, or no number.
    """
    bounds = _bounds.get(mapper)
    if bounds is None:
        bounds = _bounds[mapper] = checks_of(mapper), roundings_of(mapper)
    checks, roundings = bounds
    held = {name: rounding(values[name]) for name, rounding in roundings.items() if name in values}
    for name, check in checks.items():
        value = values.get(name)
        if value is None or hasattr(value, "__clause_element__") or hasattr(value, "self_group"):
            continue
        if (fault := check(held.get(name, value))) is not None:
            raise InvalidValueError(mapper.class_.__name__, name, fault, value)
    return held


def is_beyond(value: Any) -> bool:
    """Return whether a value is an integer that not every server takes, as it has more than 64 bits with its sign."""
    return isinstance(value, int) and not LOWEST <= value <= HIGHEST


def require_sendable(model: str, name: str, value: Any) -> None:
    """Raise `InvalidValueError` for a value to compare with that is, or contains, an integer of more than 64 bits."""
    for one in value if isinstance(value, list | tuple) else (value,):
        if is_beyond(one):
            raise InvalidValueError(model, name, BEYOND, one)


def before_insert(mapper: Mapper[Any], _connection: Any, state: Any) -> None:
    """Check and round all values of a new instance; for SQLAlchemy's event, with `raw=True`."""
    state.dict.update(fitted(mapper, state.dict))


def before_update(mapper: Mapper[Any], _connection: Any, state: Any) -> None:
    """Check and round the changed values of an instance; for SQLAlchemy's event, with `raw=True`."""
    changed = {name: state.dict[name] for name in state.committed_state if name in state.dict}
    state.dict.update(fitted(mapper, changed))


def checks_of(mapper: Mapper[Any]) -> dict[str, Check]:
    """Return the checks of the attributes whose columns have bounds."""
    columns = {one.key: one.columns[0] for one in mapper.attrs if isinstance(one, ColumnProperty)}
    found = {name: check_of(column.type) for name, column in columns.items() if isinstance(column, Column)}
    return {name: check for name, check in found.items() if check is not None}


def check_of(kind: TypeEngine[Any]) -> Check | None:  # noqa: PLR0911 - a table, read line by line
    """Return the check of a type; None if it has no bounds, or checks its values itself."""
    kind = kind.dialect_impl(MYSQL)
    if isinstance(kind, TypeDecorator):
        inner = check_of(kind.load_dialect_impl(MYSQL))
        process = kind.bind_processor(MYSQL)
        return inner if inner is None or process is None else partial(check_bound, process, inner)
    match kind:
        case Enum():
            return None
        case String() | LargeBinary() | mysql.VARBINARY() | mysql.BINARY():
            return check_of_length(kind)
        case Integer():
            bits = next(bits for size, bits in BITS.items() if isinstance(kind, size))
            is_unsigned = getattr(kind, "unsigned", False)
            lowest = 0 if is_unsigned else -(2 ** (bits - 1))
            return partial(check_integer, lowest, lowest + 2**bits - 1)
        case Float():
            is_double = isinstance(kind, Double | mysql.DOUBLE) or (kind.precision or 0) > 24  # noqa: PLR2004 - bits
            return partial(check_number, None if is_double else SINGLE_MAXIMUM)
        case Numeric():
            if kind.precision is None:
                return partial(check_number, None)
            return partial(check_number, Decimal(10) ** (kind.precision - (kind.scale or 0)))
        case _:
            return None


def check_of_length(kind: Any) -> Check | None:
    """Return the check of a text, whose length is in characters, or of bytes."""
    if isinstance(kind, WIDE):
        return None
    if isinstance(kind, NARROW):
        return partial(check_bytes, 2**8 - 1)
    length: int | None = kind.length
    if length is None or isinstance(kind, Text):
        return None if length is not None and length > BLOB_BYTES else partial(check_bytes, BLOB_BYTES)
    return partial(check_characters if isinstance(kind, String) else check_bytes, length)


def check_bound(process: Callable[[Any], Any], inner: Check, value: Any) -> str | None:
    """Check the value that a `TypeDecorator` sends to the database."""
    try:
        bound = process(value)
    except Exception:  # noqa: BLE001 - it raises the same when the value is written, on every server
        return None
    return None if bound is None else inner(bound)


def check_characters(most: int, value: Any) -> str | None:
    """Check the length of a text."""
    if isinstance(value, str) and len(value) > most:
        return f"the value is too long; at most {most} characters are allowed"
    return None


def check_bytes(most: int, value: Any) -> str | None:
    """Check the length of bytes, or of a text in UTF-8."""
    size = len(value.encode(errors="surrogatepass")) if isinstance(value, str) else None
    if isinstance(value, bytes | bytearray | memoryview):
        size = len(bytes(value))
    return (
        None if size is None or size <= most else f"the value is too long; at most {most} bytes are allowed"
    )


def check_integer(lowest: int, highest: int, value: Any) -> str | None:
    """Check the range of a whole number; other servers than SQLite would round a fraction, and refuse other texts."""
    if isinstance(value, str | float | Decimal):
        try:
            number = int(value)
        except (ValueError, OverflowError):
            return "the value is not a whole number"
        if not isinstance(value, str) and number != value:
            return "the value is not a whole number"
        value = number
    if isinstance(value, int) and not lowest <= value <= highest:
        return f"the value is out of range; it must be from {lowest} to {highest}"
    return None


def check_number(limit: Any, value: Any) -> str | None:
    """Check that a number is finite and below a limit."""
    if not isinstance(value, int | float | Decimal):
        return None
    if not math.isfinite(value):
        return "the value is not a finite number"
    if limit is not None and abs(value) >= limit:
        return f"the value is out of range; it must be below {limit:.10g}"
    return None
