"""Pages of a list, with a cursor that only this service can create, and that is valid for one list."""

import atexit
import gc
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from latchkey.middleware.root_path import public_path
from latchkey.models.into import Into
from latchkey.models.paging import page_of
from latchkey.models.query import Query
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.keys.values import in_utc
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of
from latchkey.service.problems import Problem, wrong_parameter
from latchkey.service.rule_error import RuleError
from latchkey.service.shapes import Cursor, Input, Limit

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list; `route(..., answers=Page[Item])` declares it."""

    data: list[T]
    next_cursor: str | None


# msgspec 0.22 frees the description of a parametrized Struct twice when the interpreter's last collection finds it in a
# cycle: the process then ends with a segmentation fault, after its work is done. Frozen objects are not collected.
atexit.register(gc.freeze)


class PageQuery(Input, frozen=True, kw_only=True):
    """The query parameters of a list; inherit from it to add filters."""

    limit: Limit = 50
    cursor: Cursor | None = None


async def paginate(
    request: Request, rows: Query[Any] | Into[Any], query: PageQuery, *, order_by: str | None = None
) -> Answer:
    """Return one page, with a link to the next page (RFC 8288).

    A page begins after the last row of the previous one, so that it costs the same everywhere in the list, and no row is
    repeated or skipped when others are inserted.

    Args:
        request: the request, whose path and query are those of the link.
        rows: the query without an order, a limit or an offset; with `into`, its rows are Structs.
        query: the query parameters; those beside `limit` and `cursor` are the filters, for which the cursor is valid.
        order_by: a column that is never NULL, with a leading minus for descending. Rows with the same value are ordered by
            their primary key. None orders by the primary key.

    Raises:
        Problem: `invalid_cursor`, for a cursor that was not created for this path, these filters and this order.
        TypeError: a list cannot be ordered by the column: it can be NULL, or its type is a float, an enum or another one
            whose values cannot be part of a cursor.
    """
    return await page(
        rows,
        path=request.url.path,
        filters=filters_of(query),
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
        order_by=order_by,
    )


def filters_of(query: PageQuery) -> dict[str, str]:
    """Return the given filters of a query, as a client sends them."""
    found = {}
    for name, encoded in zip(query.__struct_fields__, query.__struct_encode_fields__, strict=True):
        value = getattr(query, name)
        if name not in PageQuery.__struct_fields__ and value is not None and value is not UNSET:
            text = msgspec.to_builtins(value)
            found[encoded] = text if isinstance(text, str) else msgspec.json.encode(text).decode()
    return found


async def page(
    rows: Query[Any] | Into[Any],
    *,
    path: str,
    filters: Mapping[str, Any],
    limit: int,
    cursor: str | None,
    keyring: KeyRing,
    order_by: str | None = None,
) -> Answer:
    """Return one page, with a link to the next page.

    Raises:
        Problem: `invalid_cursor`, for a cursor that was not created for this path, these filters and this order.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    context = msgspec.json.encode([path, sorted(given.items()), order_by])
    after = None if cursor is None else opened(keyring, cursor, context)
    data, last = await page_of(rows, order_by=order_by, after=after, limit=limit)
    if last is None:
        return Answer(content=Page(data=data, next_cursor=None))
    following = keyring.seal_token(last, context)
    link = f'<{public_path(path)}?{urlencode({**given, "limit": limit, "cursor": following})}>; rel="next"'
    return Answer(content=Page(data=data, next_cursor=following), headers={"link": link})


def utc_parameter(moment: datetime | None, name: str) -> datetime | None:
    """Return the time of a query parameter in UTC, or raise a problem for a time that is out of range there."""
    if moment is None:
        return None
    try:
        return in_utc(moment)
    except RuleError as error:
        raise wrong_parameter(name, error.reason) from None


def opened(keyring: KeyRing, cursor: str, context: bytes) -> bytes:
    """Return the place that a cursor contains."""
    try:
        return keyring.open_token(cursor, context)
    except KeyRingError:
        raise Problem("invalid_cursor") from None
