"""Pages of a query, each of which begins after the last row of the previous one."""

from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Enum, inspect

from latchkey.models.fields import python_type_of
from latchkey.models.into import Into
from latchkey.models.lookups import SEPARATOR, Q, column_of, require_name
from latchkey.models.query import Query

VALUE_KINDS = {one.__name__: one for one in (bool, int, str, datetime, date, time, Decimal, UUID)}
"""The types of values that a list can be ordered by; the name is part of a cursor.

A float is not one, because a server can compare it with a rounded value; nor an enum, which a server can order by its
position and compare by its text.
"""


class Order(msgspec.Struct, frozen=True):
    """The columns that order a list without ties: one that the caller names, and the primary key."""

    names: tuple[str, ...]
    is_descending: bool

    def after(self, values: Sequence[Any]) -> Q:
        """Return the condition for the rows after the row with these values."""
        operator = "lt" if self.is_descending else "gt"
        ways = [
            Q(**dict(zip(self.names[:place], values, strict=False)), **{f"{name}__{operator}": values[place]})
            for place, name in enumerate(self.names)
        ]
        return reduce(or_, ways)


def order_of(model: type[Any], order_by: str | None) -> Order:
    """Return the order of a list; None means by the primary key.

    Raises:
        UnknownLookupError: there is no such column.
        TypeError: rows with NULL in the column would be left out, or its values cannot be part of a cursor.
    """
    mapper = inspect(model)
    names = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    if order_by is not None:
        name = require_name("order_by", order_by).removeprefix("-")
        if SEPARATOR in name:
            raise TypeError(f"{name!r}: a list cannot be paged by a column of a related row.")
        if getattr(column_of(model, name).expression, "nullable", True):
            raise TypeError(f"{model.__name__}.{name} can be NULL, so a list cannot be paged by it.")
        names = [name, *(key for key in names if key != name)]
    for name in names:
        require_pageable(model, name)
    return Order(tuple(names), is_descending=order_by is not None and order_by.startswith("-"))


def require_pageable(model: type[Any], name: str) -> None:
    """Raise `TypeError` for a column whose values cannot be part of a cursor, also while the list is short."""
    column = column_of(model, name)
    kind = python_type_of(column)
    is_native_enum = isinstance(column.type, Enum) and column.type.native_enum
    if is_native_enum or (kind is not None and kind.__name__ not in VALUE_KINDS):
        raise TypeError(
            f"{model.__name__}.{name} is {type(column.type).__name__}, and a list cannot be paged by its values; "
            f"it can by {', '.join(VALUE_KINDS)}."
        )


async def page_of(
    found: Query[Any] | Into[Any], *, order_by: str | None, after: bytes | None, limit: int
) -> tuple[list[Any], bytes | None]:
    """Return the rows of a page, as entities or as Structs, and the place after the last one, if more rows follow.

    Args:
        found: the query, without an order, a limit or an offset of its own.
        order_by: a column, with a leading minus for descending; None means by the primary key.
        after: the place that the previous page has returned; None for the first page.
        limit: the maximum number of rows.

    Raises:
        TypeError: the query has an order, a limit or an offset; or the column cannot be used.
    """
    query: Query[Any] = found._query if isinstance(found, Into) else found
    query._require_whole("a page")
    order = order_of(query._model, order_by)
    if after is not None:
        query = query.filter(order.after(decoded(after)))
    sign = "-" if order.is_descending else ""
    query = query.order_by(*(f"{sign}{name}" for name in order.names)).limit(limit + 1)
    if isinstance(found, Into):
        keyed = await query.into(found._struct)._all_with_keys(order.names)
    else:
        keyed = [(row, [getattr(row, name) for name in order.names]) for row in await query.all()]
    rows = [row for row, _ in keyed[:limit]]
    # The last page needs no place; it is encoded all the same, so that a fault shows at once.
    place = encoded(keyed[len(rows) - 1][1]) if rows else None
    return rows, place if len(keyed) > limit else None


def encoded(values: Sequence[Any]) -> bytes:
    """Return the values of a row as bytes."""
    kinds = [type(value).__name__ for value in values]
    if unknown := [kind for kind in kinds if kind not in VALUE_KINDS]:
        raise TypeError(f"a list cannot be paged by a value of the type {unknown[0]}.")
    return msgspec.json.encode(list(zip(kinds, values, strict=True)))


def decoded(place: bytes) -> list[Any]:
    """Return the values of a row from bytes that `encoded` made."""
    return [msgspec.convert(value, VALUE_KINDS[kind]) for kind, value in msgspec.json.decode(place)]
