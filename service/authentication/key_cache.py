"""What lookups found, remembered for a while: a call with a key that was seen before costs no query.

Only the lookup is spared. Whatever is checked of a key is checked on each call: its secret, its end, its status.
Secrets stay sealed in here.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

from models import ApiKey, User
from service.authentication import lookup
from service.authentication.lookup import Found, NoKeyMatch
from service.session import RequestSession

LARGEST_MEMORY = 10_000  # names found, and as many that were not
MISS_TTL_S = 2.0

Name = bytes | str
"""What a key is asked for by: the SHA-256 of a secret, or a public id."""

N = TypeVar("N", bytes, str)

Row = tuple[str, int]
"""A table and the id of a row in it."""


class Keys(Protocol):
    """Looks keys up, as `service.authentication.lookup` does and says."""

    def by_secret(self, session: RequestSession, secret_sha256: bytes, /) -> Awaitable[Found]:
        """Find the key that has this secret."""
        ...

    def by_access_key(self, session: RequestSession, access_key: str, /) -> Awaitable[Found]:
        """Find the key with this public id."""
        ...


class Entry(NamedTuple):
    """What was found, and until when it counts."""

    found: Found
    ends_at: float


class Outcome(Enum):
    """How a query ended that found no key."""

    NO_KEY = "no key"
    FAILED = "failed"
    GONE = "gone"
    """Whoever made it was cancelled."""


class KeyCache:
    """Remembers what was found for `ttl_s`, and what was not for two seconds at most.

    Any number of callers that miss the same name at the same time make one query: the first one, on its own
    session. What a query answers is not remembered when anything was forgotten since it began.

    The cache serves while it is trusted, which is for ever unless somebody says until when; else every call is
    a query, as if there were no cache.

    Args:
        ttl_s: counted from the moment at which the query began.
        clock: seconds, of a clock that only goes forward.
        memory: how many names are remembered; beyond, the one that was not asked for the longest is forgotten.
    """

    def __init__(
        self, ttl_s: float, *, clock: Callable[[], float] = time.monotonic, memory: int = LARGEST_MEMORY
    ) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._memory = memory
        self._trusted_until = math.inf
        self._generation = 0
        self._found: OrderedDict[Name, Entry] = OrderedDict()
        self._names: dict[Row, set[Name]] = {}  # of what was found, by the rows that it was found in
        self._misses: OrderedDict[Name, float] = OrderedDict()
        self._queries: dict[Name, asyncio.Future[Found | Outcome]] = {}

    def by_secret(self, session: RequestSession, secret_sha256: bytes) -> Awaitable[Found]:
        """As `lookup.by_secret`."""
        return self._find(lookup.by_secret, session, secret_sha256)

    def by_access_key(self, session: RequestSession, access_key: str) -> Awaitable[Found]:
        """As `lookup.by_access_key`."""
        return self._find(lookup.by_access_key, session, access_key)

    def trust(self, until: float) -> None:
        """Serve what is remembered until this moment of the clock, and nothing from then on."""
        self._trusted_until = until

    def forget(self, row: Row) -> None:
        """Forget what was found in a row, and everything that was not found: the row may be new."""
        self._generation += 1
        self._queries.clear()  # who asks from now on does not join a query that began before
        self._misses.clear()
        for name in tuple(self._names.get(row, ())):
            self._drop(name)

    def empty(self) -> None:
        """Forget everything."""
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
            return entry.found
        if now < self._misses.get(name, now):
            raise NoKeyMatch
        while (query := self._queries.get(name)) is not None:
            # Never the future itself: being cancelled while waiting for it would cancel it for all.
            await asyncio.wait([query])
            match query.result():
                case Found() as found:
                    return found
                case Outcome.NO_KEY:
                    raise NoKeyMatch
                case (
                    Outcome.FAILED
                ):  # each for itself, so that a database that is slow to fail is waited for once
                    return await ask(session, name)
                case Outcome.GONE:  # the first to wake up asks in its place
                    continue
        return await self._ask(ask, session, name)

    async def _ask(
        self, ask: Callable[[RequestSession, N], Awaitable[Found]], session: RequestSession, name: N
    ) -> Found:
        """Make the query that others may wait for."""
        query = self._queries[name] = asyncio.get_running_loop().create_future()
        began_at, generation = self._clock(), self._generation
        outcome: Found | Outcome = Outcome.GONE
        try:
            outcome = await ask(session, name)
        except NoKeyMatch:
            outcome = Outcome.NO_KEY
            raise
        except Exception:
            outcome = Outcome.FAILED
            raise
        else:
            return outcome
        finally:
            if self._queries.get(name) is query:
                del self._queries[name]
            if generation == self._generation:
                self._remember(name, outcome, began_at)
            query.set_result(outcome)

    def _remember(self, name: Name, outcome: Found | Outcome, began_at: float) -> None:
        if isinstance(outcome, Found):
            self._drop(name)
            self._found[name] = Entry(outcome, began_at + self._ttl_s)
            for row in rows_of(outcome):
                self._names.setdefault(row, set()).add(name)
            if len(self._found) > self._memory:
                self._drop(next(iter(self._found)))
        elif outcome is Outcome.NO_KEY:
            self._misses[name] = began_at + min(self._ttl_s, MISS_TTL_S)
            self._misses.move_to_end(name)
            if len(self._misses) > self._memory:
                self._misses.popitem(last=False)

    def _drop(self, name: Name) -> None:
        entry = self._found.pop(name, None)
        if entry is None:
            return
        for row in rows_of(entry.found):
            names = self._names[row]
            names.discard(name)
            if not names:
                del self._names[row]


def rows_of(found: Found) -> tuple[Row, Row]:
    """Return the rows whose changes change what was found."""
    return (ApiKey.__tablename__, found.key_id), (User.__tablename__, found.user.id)
