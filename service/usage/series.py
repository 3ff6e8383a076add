"""The series of calls: what they are counted by. In the database each one has a number."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, cast

import msgspec
from sqlalchemy import Table, bindparam, func, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import UsageSeries
from latchkey.models.types import cut
from latchkey.models.usage import CODE_BYTES, NO_KEY, ROUTE_BYTES

UNKNOWN_ROUTE = "(unknown path)"
"""All paths without a route, and all methods that a path does not support."""
VERIFIED = "verify"
"""The verifications for other services."""
OVERFLOW = "(other)"
"""The route of calls, and the tag of series, that exceed a bound."""

MOST_TAGGED_PER_KEY = 500  # series with tags, whose names callers choose
LARGEST_CACHE = 20_000  # series of which this process knows the number
BATCH = 200

_series = cast("Table", UsageSeries.__table__)


class Series(NamedTuple):
    """What calls are counted by; a tuple, because a call creates one."""

    route: str
    status: int
    code: str = ""
    tags: str = ""
    """Sorted, with a space between them."""

    def digest(self, key_id: int) -> bytes:
        """Return the identity of the series; with tags it belongs to one key."""
        owner = key_id if self.tags else NO_KEY
        return hashlib.sha256(msgspec.json.encode([owner, *self])).digest()

    def without_tags(self) -> "Series":
        """Return the series in which calls with further tags of a key are counted."""
        return Series(self.route, self.status, self.code, OVERFLOW)


ANYTHING = Series(OVERFLOW, 0)
"""The series of calls that this process had no memory to count by their own series."""


def insert_new(dialect: str) -> Any:
    """Return the statement that inserts series unless they exist."""
    if dialect == "sqlite":
        return sqlite.insert(_series).on_conflict_do_nothing(index_elements=[_series.c.digest])
    return mysql.insert(_series).on_duplicate_key_update(id=_series.c.id)


_FIND = select(_series.c.digest, _series.c.id).where(
    _series.c.digest.in_(bindparam("digests", expanding=True))
)
_COUNT_OF_KEYS = (
    select(_series.c.key_id, func.count())
    .where(_series.c.key_id.in_(bindparam("key_ids", expanding=True)), _series.c.key_id != NO_KEY)
    .group_by(_series.c.key_id)
)

Owned = tuple[int, Series]
"""A key and a series."""


class SeriesNumbers:
    """The numbers of series, as far as this process knows them."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}

    async def find(self, connection: AsyncConnection, wanted: Collection[Owned]) -> Mapping[Owned, int]:
        """Return the number of each series; a new one gets its number here.

        Args:
            connection: in AUTOCOMMIT mode, so that no other worker waits for a new series.
            wanted: the series, each with the key whose calls are counted.
        """
        if len(self._known) > LARGEST_CACHE:
            self._known.clear()
        digests = {one: one[1].digest(one[0]) for one in wanted}
        await self._look(connection, digests.values())
        missing = [one for one, digest in digests.items() if digest not in self._known]
        if missing:
            allowed = await bounded(connection, missing)
            digests |= {one: series.digest(one[0]) for one, series in allowed.items()}
            await self._look(connection, digests.values())
            new = {
                digests[one]: row_of(one[0], series, digests[one])
                for one, series in allowed.items()
                if digests[one] not in self._known
            }
            if new:
                await connection.execute(insert_new(connection.dialect.name), list(new.values()))
                await self._look(connection, new)
        return {one: self._known[digest] for one, digest in digests.items()}

    async def _look(self, connection: AsyncConnection, digests: Iterable[bytes]) -> None:
        """Read the numbers that this process does not know."""
        unknown = sorted(set(digests).difference(self._known))
        for first in range(0, len(unknown), BATCH):
            found = await connection.execute(_FIND, {"digests": unknown[first : first + BATCH]})
            self._known |= {bytes(digest): number for digest, number in found}


async def bounded(connection: AsyncConnection, new: Collection[Owned]) -> dict[Owned, Series]:
    """Return the series in which calls of new series are counted: a key has a bounded number of series with tags."""
    keys = sorted({key_id for key_id, series in new if series.tags})
    counts: dict[int, int] = {}
    for first in range(0, len(keys), BATCH):
        found = await connection.execute(_COUNT_OF_KEYS, {"key_ids": keys[first : first + BATCH]})
        counts |= {row[0]: row[1] for row in found}
    allowed: dict[Owned, Series] = {}
    for key_id, series in new:
        if series.tags:
            counts[key_id] = counts.get(key_id, 0) + 1
        is_full = series.tags and counts[key_id] > MOST_TAGGED_PER_KEY
        allowed[key_id, series] = series.without_tags() if is_full else series
    return allowed


def row_of(key_id: int, series: Series, digest: bytes) -> dict[str, Any]:
    """Return the row of a series."""
    return {
        "digest": digest,
        "key_id": key_id if series.tags else NO_KEY,
        "route": cut(series.route, ROUTE_BYTES),
        "status": series.status,
        "code": cut(series.code, CODE_BYTES),
        "tags": series.tags,
    }
