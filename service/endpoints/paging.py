"""Pages of a list: ordered by id, with a cursor that only this service can create, valid for one list."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from latchkey.models.base import Base
from latchkey.models.query import Query
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.operation import Answer
from latchkey.service.problems import Problem


class Rows(msgspec.Struct):
    """A page before it is encoded."""

    data: list[Any]
    next_cursor: str | None


async def page(
    query: Query[Any],
    *,
    path: str,
    filters: Mapping[str, Any],
    limit: int,
    cursor: str | None,
    keyring: KeyRing,
) -> Answer:
    """Return one page in the order of ids, with a link to the next page (RFC 8288).

    Raises:
        Problem: `invalid_cursor`, for a cursor that was not created for this path and these filters.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    context = msgspec.json.encode([path, sorted(given.items())])
    if cursor is not None:
        query = query.filter(id__gt=_open(keyring, cursor, context))
    rows: list[Base] = await query.order_by("id").limit(limit + 1).all()
    if len(rows) <= limit:
        return Answer(content=Rows(rows, None))
    rows = rows[:limit]
    following = keyring.seal_token(str(rows[-1].id).encode(), context)  # type: ignore[attr-defined]  # listed models have an id
    link = f'<{path}?{urlencode({**given, "limit": limit, "cursor": following})}>; rel="next"'
    return Answer(content=Rows(rows, following), headers={"link": link})


def _open(keyring: KeyRing, cursor: str, context: bytes) -> int:
    try:
        return int(keyring.open_token(cursor, context))
    except KeyRingError:
        raise Problem("invalid_cursor") from None
