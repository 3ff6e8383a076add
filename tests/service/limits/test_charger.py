"""Simultaneous calls: exactly the allowed number succeeds, with few round trips, and cancelled calls are not charged."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from latchkey.models import LimitCounter
from latchkey.service.database import SQLAlchemy
from latchkey.service.limits.account import Account
from latchkey.service.limits.charger import Charger, changes, open_ledgers
from latchkey.service.limits.counters import Counters, DatabaseCounters
from latchkey.service.limits.ledger import charge
from latchkey.service.limits.redis_counters import RedisCounters
from latchkey.service.problems import Problem
from latchkey.service.redis.store import Store, open_store
from latchkey.service.settings import Settings
from tests import wire
from tests.redis import PrivateRedis
from tests.service.limits.rules import limit, per_day

KEY = Account("key:1", "", (limit("burst", 300), limit("wide", 400)), None)
OTHER_KEY = Account("key:2", "", (limit("burst", 300),), None)
OWNER = Account("user:1", "owner.", (limit("burst", 100),), per_day(1000))
ONE = (KEY,)
BOTH = (KEY, OWNER)


class Tills:
    """Chargers that share only the counters, as workers do.

    Args:
        make_counters: returns those of another worker.
        purge: removes the counter of `KEY`.
        listening: collects the commands that they send.
        keeps_expired_counters: whether a counter remains when nothing counts: Redis removes it by itself.
    """

    def __init__(
        self,
        make_counters: Callable[[], Counters],
        purge: Callable[[], Awaitable[None]],
        listening: Callable[[], AbstractContextManager[list[str]]],
        *,
        keeps_expired_counters: bool,
    ) -> None:
        self.keeps_expired_counters = keeps_expired_counters
        self._make_counters = make_counters
        self.purge = purge
        self.listening = listening

    def make(self) -> Charger:
        return Charger(self._make_counters())


@contextmanager
def listening_to_redis() -> Iterator[list[str]]:
    """Collect the requests to Redis: a script with arguments writes."""
    commands: list[str] = []
    run = Store.run

    async def note(store: Store, script: str, keys: Any, arguments: Any) -> Any:
        commands.append("UPDATE" if arguments else "SELECT")
        return await run(store, script, keys, arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "run", note)
        yield commands


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateRedis]:
    """Return a Redis Cluster of one node, which refuses scripts whose keys are in several slots."""
    with PrivateRedis("--cluster-enabled", "yes") as server:
        server.hold_all_slots()
        yield server


@pytest.fixture(params=["database", "redis"])
async def tills(
    request: pytest.FixtureRequest, db: SQLAlchemy, cluster: PrivateRedis
) -> AsyncIterator[Tills]:
    if request.param == "database":

        async def purge() -> None:
            async with db.scoped_session() as session:
                await (await LimitCounter.filter().one()).remove()
                await session.commit()

        yield Tills(
            lambda: DatabaseCounters(lambda: db.reader), purge, wire.listening, keeps_expired_counters=True
        )
        return
    stores: list[Store] = []

    def make_counters() -> RedisCounters:
        store = open_store(Settings(redis_url=cluster.url, limits="redis"))
        assert store is not None
        stores.append(store)
        return RedisCounters(store)

    async def flush() -> None:
        assert cluster.command("FLUSHALL") == b"+OK\r\n"

    await flush()
    yield Tills(make_counters, flush, listening_to_redis, keeps_expired_counters=False)
    for store in stores:
        await store.close()


@pytest.fixture
async def charger(tills: Tills) -> AsyncIterator[Charger]:
    charger = tills.make()
    yield charger
    await charger.close()
    assert charger._queues == {}


async def left(charger: Charger, accounts: Any = ONE) -> dict[str, int]:
    return {figure.name: figure.remaining for figure in await charger.look(accounts)}


async def assert_expires(charger: Charger) -> None:
    """Wait until the counter of `KEY` is removed: Redis rounds the time up to its next millisecond."""
    async with asyncio.timeout(5):
        while (await charger._counters.read(ONE)).found:
            await asyncio.sleep(0.001)


async def granted(charger: Charger, accounts: Any, calls: int) -> int:
    receipts = await asyncio.gather(*(charger.charge(accounts, 1) for _ in range(calls)))
    return sum(receipt.refusal is None for receipt in receipts)


async def test_exactly_the_limit_of_many_simultaneous_calls_is_charged(charger: Charger) -> None:
    assert await granted(charger, ONE, 1000) == 300
    assert await left(charger) == {"burst": 0, "wide": 100}


async def test_exactly_the_limit_is_charged_by_several_chargers_together(
    charger: Charger, tills: Tills
) -> None:
    """As several workers would: they share only the counters."""
    workers = [tills.make() for _ in range(4)]

    found = await asyncio.gather(*(granted(one, BOTH, 50) for one in workers))

    assert sum(found) == 100
    assert await left(charger, BOTH) == {"burst": 200, "wide": 300, "owner.burst": 0, "owner.quota": 900}


async def test_two_keys_of_an_owner_share_what_is_the_owners(charger: Charger) -> None:
    found = await asyncio.gather(granted(charger, BOTH, 80), granted(charger, (OTHER_KEY, OWNER), 80))

    assert sum(found) == 100
    assert await left(charger, (OWNER,)) == {"owner.burst": 0, "owner.quota": 900}


async def test_waiting_calls_are_charged_together(charger: Charger, tills: Tills) -> None:
    await charger.charge(ONE, 1)

    with tills.listening() as commands:
        await granted(charger, ONE, 100)

    assert len(commands) <= 6  # the first alone, and then the 99 that arrived meanwhile


async def test_a_refused_call_writes_nothing(charger: Charger, tills: Tills) -> None:
    small = (Account("key:1", "", (limit("burst", 1),), None),)
    await charger.charge(small, 1)

    with tills.listening() as commands:
        await charger.charge(small, 1)

    assert [command.split()[0] for command in commands] == ["SELECT"]


async def test_the_first_ones_that_fit_get_through_in_their_order(charger: Charger) -> None:
    small = (Account("key:1", "", (limit("burst", 10),), None),)

    receipts = await asyncio.gather(*(charger.charge(small, cost) for cost in (4, 4, 4, 2, 1)))

    assert [receipt.refusal is None for receipt in receipts] == [True, True, False, True, False]


async def test_a_caller_that_leaves_before_the_charge_is_not_charged(charger: Charger) -> None:
    calls = [asyncio.create_task(charger.charge(ONE, 1)) for _ in range(10)]
    await asyncio.sleep(0)
    for call in calls[5:]:
        call.cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    await charger.close()

    assert Counter(type(one).__name__ for one in found) == {"Receipt": 5, "CancelledError": 5}
    assert await left(charger) == {"burst": 295, "wide": 395}


async def test_a_caller_that_leaves_during_the_charge_is_refunded(
    charger: Charger, tills: Tills, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = charger._counters.write

    async def write_while_it_leaves(writes: Any) -> Any:
        call.cancel()
        await asyncio.sleep(0)
        return await write(writes)

    monkeypatch.setattr(charger._counters, "write", write_while_it_leaves)
    call = asyncio.create_task(charger.charge(ONE, 1))
    await asyncio.wait([call])
    monkeypatch.undo()
    await charger.close()

    assert call.cancelled()
    assert await left(charger) == {"burst": 300, "wide": 400}
    if not tills.keeps_expired_counters:
        await assert_expires(charger)


async def test_a_caller_that_leaves_at_any_moment_is_charged_only_with_a_receipt(charger: Charger) -> None:
    told = 0
    for steps in range(120):
        call = asyncio.create_task(charger.charge(BOTH, 1))
        other = asyncio.create_task(charger.charge(ONE, 1))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        told += not call.cancelled()
        await other
        await charger.close()

    assert await left(charger, BOTH) == {
        "burst": 300 - 120 - told,
        "wide": 400 - 120 - told,
        "owner.burst": 100 - told,
        "owner.quota": 1000 - told,
    }


async def test_a_caller_that_leaves_as_its_receipt_arrives_is_refunded(
    charger: Charger, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = charger._enqueue

    def enqueue_and_leave_when_told(order: Any) -> None:
        order.receipt.add_done_callback(lambda _: call.cancel())
        enqueue(order)

    monkeypatch.setattr(charger, "_enqueue", enqueue_and_leave_when_told)
    call = asyncio.create_task(charger.charge(ONE, 1))
    await asyncio.wait([call])
    await charger.close()

    assert call.cancelled()
    assert await left(charger) == {"burst": 300, "wide": 400}


async def test_others_that_wait_with_one_that_leaves_are_charged(charger: Charger) -> None:
    first = asyncio.create_task(charger.charge(ONE, 1))
    await asyncio.sleep(0)
    others = asyncio.create_task(granted(charger, ONE, 20))
    await asyncio.sleep(0)
    first.cancel()

    assert await others == 20
    await charger.close()
    assert await left(charger) == {"burst": 280, "wide": 380}


async def test_a_charge_can_be_refunded(charger: Charger) -> None:
    receipt = await charger.charge(BOTH, 7)
    await charger.charge(BOTH, 1)

    given_back = await charger.refund(BOTH, 7, receipt.moments)

    assert {figure.name: figure.remaining for figure in given_back.figures} == await left(charger, BOTH)
    assert await left(charger, BOTH) == {"burst": 299, "wide": 399, "owner.burst": 99, "owner.quota": 999}


async def test_a_refund_is_made_even_if_its_caller_leaves(charger: Charger) -> None:
    receipt = await charger.charge(ONE, 7)

    giving_back = asyncio.create_task(charger.refund(ONE, 7, receipt.moments))
    await asyncio.sleep(0)
    giving_back.cancel()
    await asyncio.wait([giving_back])
    await charger.close()

    assert giving_back.cancelled()
    assert await left(charger) == {"burst": 300, "wide": 400}


async def test_an_owner_who_is_limited_later_gets_a_counter_beside_its_keys(charger: Charger) -> None:
    await charger.charge(ONE, 1)
    await charger.charge(BOTH, 1)

    assert await left(charger, BOTH) == {"burst": 298, "wide": 398, "owner.burst": 99, "owner.quota": 999}


@pytest.mark.parametrize("accounts", [ONE, BOTH], ids=["one", "both"])
async def test_one_of_two_writers_of_the_same_version_succeeds(
    charger: Charger, accounts: tuple[Account, ...]
) -> None:
    counters = charger._counters
    await charger.charge(accounts, 1)
    reading = await counters.read(accounts)
    ledgers = open_ledgers(accounts, reading)
    charge(ledgers, 1)

    written = [await counters.write(changes(ledgers, reading)) for _ in range(2)]

    assert written == [True, False]
    assert (await left(charger, accounts))["burst"] == 298


async def test_both_counters_are_written_or_none(charger: Charger) -> None:
    """Another call has changed only the owner's counter: the key's must not be written either."""
    await charger.charge(BOTH, 1)
    counters = charger._counters
    reading = await counters.read(BOTH)
    ledgers = open_ledgers(BOTH, reading)
    charge(ledgers, 1)
    await charger.charge((OWNER,), 1)
    before = await counters.read(BOTH)

    assert await counters.write(changes(ledgers, reading)) is False
    assert (await counters.read(BOTH)).found == before.found


async def test_a_counter_that_was_purged_meanwhile_is_not_written_over(
    charger: Charger, tills: Tills
) -> None:
    counters = charger._counters
    await charger.charge(ONE, 1)
    reading = await counters.read(ONE)
    ledgers = open_ledgers(ONE, reading)
    await tills.purge()
    await charger.charge(ONE, 1)

    assert await counters.write(changes(ledgers, reading)) is False


async def test_the_clock_is_that_of_the_server(charger: Charger) -> None:
    first, second = [(await charger._counters.read(ONE)).clock for _ in range(2)]

    assert first <= second < first + 60_000_000


async def test_an_error_reaches_all_who_wait_and_nobody_later(
    charger: Charger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_subjects: object) -> None:
        raise OperationalError("SELECT", {}, Exception(2003, "Can't connect"))

    with monkeypatch.context() as patch:
        patch.setattr(charger._counters, "read", fail)
        calls = [charger.charge(accounts, 1) for accounts in (ONE, BOTH, (OTHER_KEY, OWNER), BOTH)]
        found = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(one) for one in found] == [OperationalError] * 4
    assert await granted(charger, BOTH, 1) == 1


async def test_a_charger_that_loses_every_race_gives_up(
    charger: Charger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(_writes: object) -> bool:
        return False

    monkeypatch.setattr("latchkey.service.limits.charger.LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(charger._counters, "write", lose)

    with pytest.raises(Problem) as raised:
        await charger.charge(ONE, 1)

    assert raised.value.code == "unavailable"
