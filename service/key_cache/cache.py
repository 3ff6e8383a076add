"""The key cache: a call with a key that was looked up recently costs no query.

Only the lookup is skipped. Every check of a key is made on each call: its secret, its expiry, its status.
Secrets stay encrypted in the cache.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple, TypeVar

from latchkey.middleware.measured import note_lookup
from latchkey.models import ApiKey, Role, User
from latchkey.service.authentication import lookup
from latchkey.service.authentication.lookup import Found, NoKeyMatch
from latchkey.service.database.session import RequestSession

LARGEST_MEMORY = 10_000  # names that were found, and as many that were not
MISS_TTL_S = 2.0

LookupKey = bytes | str
"""The key of a lookup: the SHA-256 of a secret, or an access key."""

N = TypeVar("N", bytes, str)

RowReference = tuple[str, int]
"""A table and the id of a row in it."""


class Entry(NamedTuple):
    """A cached result and its expiry."""

    found: Found
    ends_at: float


class LookupOutcome(Enum):
    """The outcome of a query that found no key."""

    NO_KEY = "no key"
    FAILED = "failed"
    GONE = "gone"
    """Its task was cancelled."""


class KeyCache:
    """A cache that keeps found keys for `ttl_s` seconds, and misses for at most two seconds.

    Callers that miss the same name at the same time share one query, which runs on the session of the first caller.
    The result of a query is not cached when anything was invalidated since the query began.

    The cache is used only while it is trusted: always, unless `trust` sets an end. After that end every call makes a
    query.

    Args:
        ttl_s: counted from the start of the query.
        clock: a monotonic clock, in seconds.
        memory: the maximum number of cached names; the least recently used one is evicted.
    """

    def __init__(
        self, ttl_s: float, *, clock: Callable[[], float] = time.monotonic, memory: int = LARGEST_MEMORY
    ) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._memory = memory
        self._trusted_until = math.inf
        self._generation = 0
        self._found: OrderedDict[LookupKey, Entry] = OrderedDict()
        self._names: dict[RowReference, set[LookupKey]] = {}  # cached names, by the rows that they depend on
        self._misses: OrderedDict[LookupKey, float] = OrderedDict()
        self._queries: dict[LookupKey, asyncio.Future[Found | LookupOutcome]] = {}

    def by_secret(self, session: RequestSession, secret_sha256: bytes) -> Awaitable[Found]:
        """Return the key that has this secret, as `lookup.by_secret`."""
        return self._find(lookup.by_secret, session, secret_sha256)

    def by_access_key(self, session: RequestSession, access_key: str) -> Awaitable[Found]:
        """Return the key with this access key, as `lookup.by_access_key`."""
        return self._find(lookup.by_access_key, session, access_key)

    def trust(self, until: float) -> None:
        """Use cached results until this time of the clock, and none afterwards."""
        self._trusted_until = until

    def forget(self, row: RowReference) -> None:
        """Invalidate the entries that depend on a row, and all misses: the row may be new.

        Any entry may depend on a role.
        """
        if row[0] == Role.__tablename__:
            self.empty()
            return
        self._generation += 1
        self._queries.clear()  # later callers do not share a query that began before
        self._misses.clear()
        for name in tuple(self._names.get(row, ())):
            self._drop(name)

    def empty(self) -> None:
        """Invalidate everything."""
        self._generation += 1
        for memory in (self._queries, self._misses, self._found, self._names):
            memory.clear()

    async def _find(
        self, ask: Callable[[RequestSession, N], Awaitable[Found]], session: RequestSession, name: N
    ) -> Found:
        now = self._clock()
        if now >= self._trusted_until:
            return await ask(session, name)
        entry = self._found.get(name)
        if entry is not None and now < entry.ends_at:
            self._found.move_to_end(name)
            note_lookup(is_hit=True)
            return entry.found
        note_lookup(is_hit=False)
        if now < self._misses.get(name, now):
            raise NoKeyMatch
        while (query := self._queries.get(name)) is not None:
            # Not the future itself: a cancelled caller would cancel it for all.
            await asyncio.wait([query])
            match query.result():
                case Found() as found:
                    return found
                case LookupOutcome.NO_KEY:
                    raise NoKeyMatch
                case (
                    LookupOutcome.FAILED
                ):  # separately, so that a database that fails slowly is waited for once
                    return await ask(session, name)
                case LookupOutcome.GONE:  # the first caller to wake up makes the query instead
                    continue
        return await self._ask(ask, session, name)

    async def _ask(
        self, ask: Callable[[RequestSession, N], Awaitable[Found]], session: RequestSession, name: N
    ) -> Found:
        """Make the query that other callers may share."""
        query = self._queries[name] = asyncio.get_running_loop().create_future()
        began_at, generation = self._clock(), self._generation
        outcome: Found | LookupOutcome = LookupOutcome.GONE
        try:
            outcome = await ask(session, name)
        except NoKeyMatch:
            outcome = LookupOutcome.NO_KEY
            raise
        except Exception:
            outcome = LookupOutcome.FAILED
            raise
        else:
            return outcome
        finally:
            if self._queries.get(name) is query:
                del self._queries[name]
            if generation == self._generation:
                self._remember(name, outcome, began_at)
            query.set_result(outcome)

    def _remember(self, name: LookupKey, outcome: Found | LookupOutcome, began_at: float) -> None:
        if isinstance(outcome, Found):
            self._drop(name)
            self._found[name] = Entry(outcome, began_at + self._ttl_s)
            for row in rows_of(outcome):
                self._names.setdefault(row, set()).add(name)
            if len(self._found) > self._memory:
                self._drop(next(iter(self._found)))
        elif outcome is LookupOutcome.NO_KEY:
            self._misses[name] = began_at + min(self._ttl_s, MISS_TTL_S)
            self._misses.move_to_end(name)
            if len(self._misses) > self._memory:
                self._misses.popitem(last=False)

    def _drop(self, name: LookupKey) -> None:
        entry = self._found.pop(name, None)
        if entry is None:
            return
        for row in rows_of(entry.found):
            names = self._names[row]
            names.discard(name)
            if not names:
                del self._names[row]


def rows_of(found: Found) -> tuple[RowReference, RowReference]:
    """Return the rows that a result depends on."""
    return (ApiKey.__tablename__, found.key_id), (User.__tablename__, found.user.id)
