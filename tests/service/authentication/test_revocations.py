"""Two workers on one Redis: each receives the messages of the other, and notices a missed one."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from latchkey.service.authentication import lookup
from latchkey.service.key_cache import revocations
from latchkey.service.key_cache.cache import KeyCache
from latchkey.service.key_cache.channel import Channel, open_channel
from latchkey.service.key_cache.revocations import HEARTBEAT_S, TRUST_S, Revocations
from latchkey.service.redis.client import UnreachableError
from latchkey.service.settings import Settings
from tests.redis import PrivateRedis
from tests.service.authentication.test_key_cache import found

SOON_S = 0.2  # far less than a heartbeat
KEYS = {"lka_1": ("api_keys", 1), "lka_2": ("api_keys", 2)}


class Worker:
    """A cache that follows a Redis, and the number of its queries for each of two keys."""

    def __init__(self, url: str) -> None:
        self.cache = KeyCache(3600)
        channel = open_channel(Settings(redis_url=url))
        assert channel is not None
        self.channel: Channel = channel
        self.revocations = Revocations(self.cache, channel)

    async def remembers(self, name: str) -> bool:
        """Return whether a call with the key costs no query; afterwards the key is cached, if the cache is on."""
        asked: Any = []
        await self.cache.by_access_key(asked, name)
        return not asked

    async def is_on(self) -> bool:
        await self.remembers("lka_1")
        return await self.remembers("lka_1")

    async def until_on(self) -> None:
        async with asyncio.timeout(10):
            while not await self.is_on():
                await asyncio.sleep(0.01)

    async def until_off(self) -> None:
        async with asyncio.timeout(10):
            while await self.is_on():
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.revocations.follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await self.revocations.close()


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return a database with both keys that records the queries."""

    async def ask(session: Any, name: str) -> lookup.Found:
        session.append(name)
        return found(KEYS[name][1], KEYS[name][1])

    monkeypatch.setattr(lookup, "by_access_key", ask)


@pytest.fixture
async def workers(redis: PrivateRedis) -> AsyncIterator[list[Worker]]:
    """Return two workers that follow, with both keys in their caches."""
    made = [Worker(redis.url), Worker(redis.url)]
    async with contextlib.AsyncExitStack() as stack:
        for worker in made:
            await stack.enter_async_context(worker.following())
            await worker.until_on()
            await worker.remembers("lka_2")
        yield made


async def test_nothing_is_remembered_before_somebody_listens(redis: PrivateRedis) -> None:
    worker = Worker(redis.url)

    assert not await worker.is_on()

    await worker.revocations.close()


@pytest.mark.parametrize("row", KEYS.values(), ids=KEYS)
async def test_an_announced_row_is_forgotten_by_all_workers_and_no_other_row(
    workers: list[Worker], row: tuple[str, int]
) -> None:
    await workers[0].revocations.announce(*row)
    forgotten_here = {name for name in KEYS if not await workers[0].remembers(name)}
    await asyncio.sleep(SOON_S)
    forgotten_there = {name for name in KEYS if not await workers[1].remembers(name)}

    assert [forgotten_here, forgotten_there] == [{name for name in KEYS if KEYS[name] == row}] * 2


async def test_the_cache_stays_on_while_nothing_happens_and_while_much_does(workers: list[Worker]) -> None:
    for number in range(40):
        await workers[0].revocations.announce("api_keys", 100 + number)
        await asyncio.sleep(2 * TRUST_S / 40)

    for worker in workers:
        assert [await worker.remembers(name) for name in KEYS] == [True, True]


async def test_a_lost_message_is_noticed_by_the_next_one(workers: list[Worker], redis: PrivateRedis) -> None:
    """Its number is one too high, so the content of the lost message is unknown."""
    redis.command("INCR", workers[0].channel.name)

    await workers[0].channel.publish("api_keys 99")
    await asyncio.sleep(SOON_S)

    assert not any([await workers[1].remembers(name) for name in KEYS])


async def test_a_lost_message_is_noticed_by_the_next_heartbeat(
    workers: list[Worker], redis: PrivateRedis
) -> None:
    redis.command("INCR", workers[0].channel.name)

    await asyncio.sleep(HEARTBEAT_S + SOON_S)

    for worker in workers:
        assert not any([await worker.remembers(name) for name in KEYS])


@pytest.mark.parametrize("command", ["DEL", "SET"])
async def test_a_counter_that_goes_back_is_noticed(
    workers: list[Worker], redis: PrivateRedis, command: str
) -> None:
    """This happens when Redis is replaced behind an open connection."""
    for _ in range(5):
        await workers[0].channel.publish("api_keys 99")
    await asyncio.sleep(HEARTBEAT_S + SOON_S)
    for name in KEYS:
        await workers[1].remembers(name)
    redis.command(command, workers[0].channel.name, *(["3"] if command == "SET" else []))

    await asyncio.sleep(HEARTBEAT_S + SOON_S)

    assert not any([await workers[1].remembers(name) for name in KEYS])


@pytest.mark.parametrize("words", ["*", "api_keys", "api_keys x", "api_keys 1 2", "\xff"])
async def test_an_unknown_message_invalidates_everything(workers: list[Worker], words: str) -> None:
    await workers[0].channel.publish(words)
    await asyncio.sleep(SOON_S)

    assert not any([await workers[1].remembers(name) for name in KEYS])


async def test_without_redis_the_cache_is_off_and_comes_back_empty(
    workers: list[Worker], redis: PrivateRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "latchkey.authentication")
    redis.kill()
    for worker in workers:
        await worker.until_off()
    await asyncio.sleep(1)
    redis.start()
    for worker in workers:
        await worker.until_on()

    assert [await worker.remembers("lka_2") for worker in workers] == [False, False]
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    # A worker of a slow machine may have been off already.
    assert set(told) == {"the key cache is off until Redis is back", "Redis is back"}
    assert told.count("Redis is back") == 2


async def test_a_worker_that_cannot_reach_redis_stops_trusting_what_it_knows_in_time(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are open, but neither messages nor answers arrive."""
    stuck = asyncio.Event()

    async def wait(*_: object) -> Any:
        async with asyncio.timeout(30):
            await stuck.wait()

    monkeypatch.setattr(Channel, "count", wait)
    began = time.monotonic()
    await workers[0].until_off()

    assert time.monotonic() - began < TRUST_S + SOON_S


async def test_announcements_without_redis_fail_no_call_and_are_made_up_for(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker never lost its connection, so it cannot notice by itself."""
    publish = Channel.publish

    async def refuse(channel: Channel, what: str) -> None:
        raise UnreachableError("a test says so")

    monkeypatch.setattr(Channel, "publish", refuse)
    await workers[0].revocations.announce("api_keys", 1)
    here, there = [await worker.remembers("lka_1") for worker in workers]
    monkeypatch.setattr(Channel, "publish", publish)
    await asyncio.sleep(HEARTBEAT_S + 2 * revocations.PAUSES_S[0] + SOON_S)
    later = await workers[1].remembers("lka_1")

    assert (here, there, later) == (False, True, False)


async def test_an_announcement_that_is_cancelled_is_made_up_for(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hooks of a commit have a deadline."""
    publish = Channel.publish

    async def wait(channel: Channel, what: str) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(Channel, "publish", wait)
    announcing = asyncio.create_task(workers[0].revocations.announce("api_keys", 1))
    await asyncio.sleep(0)
    announcing.cancel()
    await asyncio.wait([announcing])
    monkeypatch.setattr(Channel, "publish", publish)
    await asyncio.sleep(HEARTBEAT_S + SOON_S)

    assert announcing.cancelled()
    assert not await workers[1].remembers("lka_1")


async def test_a_fault_of_our_own_switches_the_cache_off_for_a_moment_only(
    workers: list[Worker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count = Channel.count

    async def fail(channel: Channel) -> int:
        monkeypatch.setattr(Channel, "count", count)
        raise NotImplementedError

    monkeypatch.setattr(Channel, "count", fail)
    await asyncio.sleep(HEARTBEAT_S + SOON_S)
    for worker in workers:
        await worker.until_on()

    assert "following Redis failed" in caplog.text


async def test_without_a_channel_the_own_cache_forgets() -> None:
    worker = KeyCache(3600)
    alone = Revocations(worker, None)
    await alone.follow()
    asked: Any = []
    await worker.by_access_key(asked, "lka_1")

    await alone.announce("api_keys", 1)
    await worker.by_access_key(asked, "lka_1")
    await alone.close()

    assert asked == ["lka_1"] * 2
