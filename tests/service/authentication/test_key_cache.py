"""The key cache alone: what it stores and for how long, and which caller makes the query when several need it."""

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from latchkey.service.authentication import lookup
from latchkey.service.authentication.lookup import Found, NoKeyMatch, OwnerNotFound
from latchkey.service.authentication.records import KeyRecord, UserRecord
from latchkey.service.authentication.wire.extraction import Unauthenticated
from latchkey.service.key_cache import cache as key_cache
from latchkey.service.key_cache.cache import KeyCache

TTL_S = 60.0
EPOCH = datetime.fromtimestamp(0, UTC)


def found(key_id: int = 1, user_id: int = 1) -> Found:
    """Return the result of a lookup; two results are never the same object."""
    key: dict[str, Any] = dict.fromkeys(KeyRecord.__struct_fields__)
    user: dict[str, Any] = dict.fromkeys(UserRecord.__struct_fields__)
    return Found(key_id, KeyRecord(**key), UserRecord(**user | {"id": user_id}), ())


@pytest.mark.parametrize("stored", [None, '{"plan": {"name": "gold"}}'], ids=["none", "some"])
def test_a_caller_that_changes_its_metadata_changes_no_other_caller(stored: str | None) -> None:
    cached = msgspec.structs.replace(found().key, meta_json=stored)
    before = cached.meta

    cached.meta["plan"] = "free"
    cached.meta.setdefault("plan", {})["name"] = "free"

    assert cached.meta == before == ({"plan": {"name": "gold"}} if stored else {})


class Clock:
    """A clock that only a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Table:
    """A replacement for the database: its rows by name, the number of queries, and which queries must wait."""

    def __init__(self) -> None:
        self.rows: dict[Any, Found | Exception] = {}
        self.asked: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, session: Any, name: Any) -> Found:
        self.asked.append((session, name))
        row = self.rows.get(name, NoKeyMatch())  # read now, answered when it is open
        await self.open.wait()
        if isinstance(row, Exception):
            raise row
        return row

    async def reached(self, times: int) -> None:
        async with asyncio.timeout(5):
            while len(self.asked) < times:
                await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    table = Table()
    for name in ("by_secret", "by_access_key"):
        monkeypatch.setattr(lookup, name, table.ask)
    return table


@pytest.fixture
def cache(clock: Clock, table: Table) -> KeyCache:
    return KeyCache(TTL_S, clock=clock, memory=3)


async def ask(cache: KeyCache, name: str | bytes = b"a", session: Any = None) -> Found | None:
    try:
        if isinstance(name, bytes):
            return await cache.by_secret(session, name)
        return await cache.by_access_key(session, name)
    except NoKeyMatch:
        return None


async def start(cache: KeyCache, table: Table, *sessions: str) -> list[asyncio.Task[Found | None]]:
    """Start several callers with the same lookup; the first has made the query, which waits."""
    table.open.clear()
    tasks = [asyncio.create_task(ask(cache, session=one)) for one in sessions]
    await table.reached(1)
    await asyncio.sleep(0)
    return tasks


# ---------------------------------------------------------------------- expiry


@pytest.mark.parametrize(
    "there, later_s, asked",
    [
        pytest.param(True, 0, 1, id="found"),
        pytest.param(True, TTL_S - 0.001, 1, id="found, before its end"),
        pytest.param(True, TTL_S, 2, id="found, at its end"),
        pytest.param(False, 0, 1, id="missed"),
        pytest.param(False, key_cache.MISS_TTL_S - 0.001, 1, id="missed, before its end"),
        pytest.param(False, key_cache.MISS_TTL_S, 2, id="missed, at its end"),
    ],
)
@pytest.mark.parametrize("name", [b"hash", "lka_1"], ids=["by secret", "by access key"])
async def test_results_are_cached_for_a_while(
    cache: KeyCache, clock: Clock, table: Table, name: bytes | str, there: bool, later_s: float, asked: int
) -> None:
    table.rows = {name: found()} if there else {}
    first = await ask(cache, name)

    clock.now += later_s
    again = await ask(cache, name)

    assert again is first
    assert (first is not None) is there
    assert len(table.asked) == asked


async def test_a_short_ttl_bounds_misses_too(clock: Clock, table: Table) -> None:
    cache = KeyCache(1, clock=clock)
    await ask(cache)

    clock.now += 1
    await ask(cache)

    assert len(table.asked) == 2


async def test_the_time_counts_from_the_beginning_of_the_query(
    cache: KeyCache, clock: Clock, table: Table
) -> None:
    """The row may have changed right after it was read, however long the answer took."""
    table.rows = {b"a": found()}
    (slow,) = await start(cache, table, "slow")
    clock.now += TTL_S
    table.open.set()
    await slow

    await ask(cache)

    assert len(table.asked) == 2


# ---------------------------------------------------------------------- size


@pytest.mark.parametrize("there", [True, False], ids=["found", "missed"])
async def test_beyond_its_memory_the_oldest_is_forgotten(cache: KeyCache, table: Table, there: bool) -> None:
    names = [b"%d" % number for number in range(4)]
    table.rows = {name: found() for name in names} if there else {}
    for name in names:
        await ask(cache, name)

    for name in reversed(names):
        await ask(cache, name)

    assert [name for _, name in table.asked] == [*names, names[0]]


async def test_recently_used_names_are_evicted_last(cache: KeyCache, table: Table) -> None:
    table.rows = {name: found(key_id) for key_id, name in enumerate([b"a", b"b", b"c", b"d"])}
    for name in (b"a", b"b", b"c", b"a", b"d"):
        await ask(cache, name)
    table.asked.clear()

    for name in (b"a", b"c", b"d", b"b"):
        await ask(cache, name)

    assert [name for _, name in table.asked] == [b"b"]


async def test_misses_drive_out_nothing_that_was_found(cache: KeyCache, table: Table) -> None:
    table.rows = {b"a": found()}
    await ask(cache)
    for number in range(10):
        await ask(cache, b"unknown %d" % number)
    table.asked.clear()

    await ask(cache)

    assert table.asked == []


async def test_nothing_is_kept_of_what_was_forgotten(cache: KeyCache, table: Table) -> None:
    """With each entry the references from rows to names are removed, too."""
    table.rows = {b"%d" % number: found(number, number) for number in range(6)}
    for name in table.rows:
        await ask(cache, name)
    for number in range(6):
        cache.forget(("users", number))

    assert not any((cache._found, cache._names, cache._misses, cache._queries))


# ---------------------------------------------------------------------- invalidation


@pytest.mark.parametrize(
    "forget, asked_again",
    [
        pytest.param(lambda cache: cache.forget(("api_keys", 1)), {b"a", "lka_1"}, id="a key"),
        pytest.param(lambda cache: cache.forget(("users", 7)), {b"a", "lka_1", b"b"}, id="an owner"),
        pytest.param(lambda cache: cache.forget(("api_keys", 99)), set(), id="another key"),
        pytest.param(lambda cache: cache.forget(("users", 1)), set(), id="a user with a key's id"),
        pytest.param(KeyCache.empty, {b"a", "lka_1", b"b"}, id="everything"),
    ],
)
async def test_a_change_is_forgotten_by_every_name(
    clock: Clock, table: Table, forget: Callable[[KeyCache], None], asked_again: set[Any]
) -> None:
    cache = KeyCache(TTL_S, clock=clock)
    table.rows = {b"a": found(1, 7), "lka_1": found(1, 7), b"b": found(2, 7)}
    for name in table.rows:
        await ask(cache, name)
    table.asked.clear()

    forget(cache)
    for name in table.rows:
        await ask(cache, name)

    assert {name for _, name in table.asked} == asked_again


async def test_a_new_key_is_known_at_once(cache: KeyCache, table: Table) -> None:
    assert await ask(cache) is None
    table.rows = {b"a": found(5)}

    cache.forget(("api_keys", 5))

    assert await ask(cache) is table.rows[b"a"]


@pytest.mark.parametrize("there", [True, False], ids=["found", "missed"])
@pytest.mark.parametrize(
    "forget", [lambda cache: cache.forget(("api_keys", 1)), KeyCache.empty], ids=["a row", "everything"]
)
async def test_results_read_before_a_change_are_not_cached_after_it(
    cache: KeyCache, table: Table, there: bool, forget: Callable[..., Any]
) -> None:
    """The query reads, the key changes, the answer arrives: it is returned, but not cached."""
    table.rows = {b"a": found(1)} if there else {}
    before = table.rows.get(b"a")
    (early,) = await start(cache, table, "early")
    early_answer, table.open = table.open, asyncio.Event()
    table.rows = {b"a": found(1)}
    forget(cache)
    late = asyncio.create_task(ask(cache, session="late"))
    await table.reached(2)
    table.open.set()

    assert await late is table.rows[b"a"]
    early_answer.set()
    assert await early is before
    assert await ask(cache) is table.rows[b"a"]
    assert [session for session, _ in table.asked] == ["early", "late"]


@pytest.mark.parametrize("there", [True, False], ids=["found", "missed"])
async def test_results_read_before_a_change_are_not_cached_without_further_calls(
    cache: KeyCache, table: Table, there: bool
) -> None:
    table.rows = {b"a": found(1)} if there else {}
    (early,) = await start(cache, table, "early")
    table.rows = {b"a": found(1)}
    cache.forget(("api_keys", 1))
    table.open.set()
    await early

    assert await ask(cache) is table.rows[b"a"]


async def test_a_query_that_ends_late_does_not_get_in_the_way_of_a_newer_one(
    cache: KeyCache, table: Table
) -> None:
    """It removes only itself from the queries that callers share."""
    table.rows = {b"a": found(1)}
    (early,) = await start(cache, table, "early")
    early_answer, table.open = table.open, asyncio.Event()
    cache.empty()
    late = asyncio.create_task(ask(cache, session="late"))
    await table.reached(2)
    early_answer.set()
    await early

    joined = asyncio.create_task(ask(cache, session="joined"))
    await asyncio.sleep(0)
    table.open.set()

    assert await late is await joined is table.rows[b"a"]
    assert len(table.asked) == 2


# ---------------------------------------------------------------------- simultaneous callers


@pytest.mark.parametrize("there", [True, False], ids=["found", "missed"])
async def test_many_who_miss_at_once_make_one_query_on_the_first_ones_session(
    cache: KeyCache, table: Table, there: bool
) -> None:
    table.rows = {b"a": found()} if there else {}
    tasks = await start(cache, table, "first", "second", "third")

    table.open.set()
    answers = await asyncio.gather(*tasks)

    assert answers == [table.rows.get(b"a")] * 3
    assert table.asked == [("first", b"a")]


async def test_different_names_do_not_wait_for_each_other(cache: KeyCache, table: Table) -> None:
    table.rows = {b"a": found(1), "a": found(2)}
    tasks = [asyncio.create_task(ask(cache, name)) for name in table.rows]

    assert [one.key_id for one in await asyncio.gather(*tasks)] == [1, 2]


@pytest.mark.parametrize(
    "gone, asked",
    [
        pytest.param(["second"], 1, id="one who waits"),
        pytest.param(["first"], 2, id="the one who asks"),
        pytest.param(["first", "second"], 3, id="the one who asks, then the one who asks in its place"),
    ],
)
async def test_a_cancelled_caller_fails_no_other_caller(
    cache: KeyCache, table: Table, gone: list[str], asked: int
) -> None:
    """One of the waiting callers makes the query instead."""
    table.rows = {b"a": found()}
    sessions = ["first", "second", "third", "fourth"]
    tasks = dict(zip(sessions, await start(cache, table, *sessions), strict=True))

    for session in gone:
        tasks[session].cancel()
        await asyncio.wait([tasks[session]])
    table.open.set()
    answers = await asyncio.gather(*(tasks[one] for one in sessions if one not in gone))

    assert all(tasks[one].cancelled() for one in gone)
    assert answers == [table.rows[b"a"]] * len(answers)
    assert len(table.asked) == asked


@pytest.mark.parametrize(
    "error", [OSError("the database is gone"), OwnerNotFound("lka_1")], ids=["database", "no owner"]
)
async def test_a_failure_is_remembered_by_nobody(
    cache: KeyCache, table: Table, error: OSError | OwnerNotFound
) -> None:
    """The waiting callers make their own queries at once, so a database that fails slowly is waited for only once."""
    table.rows = {b"a": error}
    tasks = await start(cache, table, "first", "second", "third")
    table.rows = {b"a": found()}
    table.open.set()

    first, *others = await asyncio.gather(*tasks, return_exceptions=True)

    assert first is error
    assert others == [table.rows[b"a"]] * 2
    assert sorted(session for session, _ in table.asked) == ["first", "second", "third"]
    assert isinstance(error, OSError | Unauthenticated)


# ---------------------------------------------------------------------- trust


async def test_nothing_is_served_beyond_the_trust(cache: KeyCache, clock: Clock, table: Table) -> None:
    table.rows = {b"a": found()}
    await ask(cache)
    await ask(cache, b"unknown")
    cache.trust(clock.now + 1)
    table.asked.clear()

    for name in (b"a", b"unknown"):
        await ask(cache, name)
    within = len(table.asked)
    clock.now += 1
    for name in (b"a", b"unknown"):
        await ask(cache, name)

    assert (within, len(table.asked)) == (0, 2)


async def test_without_trust_everybody_asks(cache: KeyCache, table: Table) -> None:
    """A query in progress is not shared either: it may have read before a change that was not announced."""
    table.rows = {b"a": found()}
    tasks = await start(cache, table, "first")
    cache.trust(-math.inf)
    tasks.append(asyncio.create_task(ask(cache, session="second")))
    await table.reached(2)
    table.open.set()

    assert await asyncio.gather(*tasks) == [table.rows[b"a"]] * 2
