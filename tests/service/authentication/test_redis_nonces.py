"""Nonces in Redis: a signed call is accepted once, and a Redis that may have forgotten nonces accepts nothing older."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.app import create_app
from latchkey.service.authentication.nonces import NonceClaim, RedisNonces
from latchkey.service.authentication.replay import SKEW_S, Replays
from latchkey.service.commands.server import require_usable
from latchkey.service.lifespan import lifespan
from latchkey.service.operation import Operation
from latchkey.service.redis.client import TIMEOUT_S, UnreachableError
from latchkey.service.redis.store import Store, open_store
from latchkey.service.settings import Settings, SettingsError
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import KEYRING, opened
from tests.redis import MASTER, PrivateRedis
from tests.service.authentication.test_replay import send

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

WINDOW_S = 60
LONG_AGO = "1"


@pytest.fixture(scope="module")
def keeping() -> Iterator[PrivateRedis]:
    with PrivateRedis(keeps=True) as server:
        yield server


@pytest.fixture
def redis(keeping: PrivateRedis) -> PrivateRedis:
    """Return a Redis without keys that keeps what it acknowledges."""
    assert keeping.command("FLUSHALL") == b"+OK\r\n"
    return keeping


@pytest.fixture
def settings(settings: Settings, redis: PrivateRedis) -> Settings:
    return msgspec.structs.replace(
        settings, redis_url=redis.url, nonces="redis", clock_window_s=WINDOW_S, pool_timeout_s=10.0
    )


@pytest.fixture
async def app(
    settings: Settings, routes: Sequence[Operation], redis: PrivateRedis
) -> AsyncIterator[Starlette]:
    """Return an application whose Redis has had its memory for long."""
    async with opened(lambda: create_app(settings, routes=routes), settings) as app:
        redis.command("SET", since_key(app), LONG_AGO)
        yield app
        await app.state.latchkey.redis_store.close()
        await app.state.latchkey.revocations.close()


def since_key(app: Starlette) -> str:
    return since_of(app.state.latchkey.redis_store)


def since_of(store: Store) -> str:
    return RedisNonces(store, early_s=0)._since.decode()


async def test_a_nonce_is_taken_once(app: Starlette, signer: HeldKey) -> None:
    first, second = [await send(app, signer) for _ in range(2)]
    other = await hold_key(app, mode="signed")

    assert first.status == 200
    assert_problem(second, 401, "replayed")
    assert (await send(app, other)).status == 200


async def test_one_of_many_copies_is_accepted_by_several_workers(app: Starlette, settings: Settings) -> None:
    """The workers share only Redis; some copies wait in a worker for the same round trip, with other nonces."""
    stores = [found for _ in range(4) if (found := open_store(settings)) is not None]
    workers = [Replays(RedisNonces(one, early_s=WINDOW_S + SKEW_S), WINDOW_S) for one in stores]
    now = int(time.time())
    claims = [NonceClaim.of_nonce("lka_1", f"n0nce-{number:016}", now) for number in range(50)]

    accepted = await asyncio.gather(
        *(worker.reserve(claim) for claim in claims for worker in workers for _ in range(3))
    )
    for store in stores:
        await store.close()

    assert Counter(accepted) == {True: 50, False: 550}


async def test_a_nonce_is_kept_until_every_clock_refuses_the_signature(
    app: Starlette, signer: HeldKey, redis: PrivateRedis
) -> None:
    assert (await send(app, signer, created=int(time.time()) + WINDOW_S)).status == 200

    names = redis.command("KEYS", "*:lka_*").split(b"\r\n")[2::2]
    left_s = int(redis.command("TTL", names[0].decode())[1:])
    assert len(names) == 1
    assert left_s > 2 * WINDOW_S + SKEW_S - 5


async def test_a_nonce_that_has_expired_by_the_clock_of_redis_is_refused(app: Starlette) -> None:
    """Its key is gone, so that it would be accepted again."""
    replays: Replays = app.state.latchkey.replays
    replays.clock = lambda: time.time() - 3600

    assert not await replays.reserve(NonceClaim.of_nonce("lka_1", "n" * 20, int(time.time()) - 3600))


async def test_a_redis_that_lost_its_memory_accepts_no_signature_from_before(
    app: Starlette, signer: HeldKey, redis: PrivateRedis
) -> None:
    """It cannot know whether the signature was used. The answer names when the next one is accepted."""
    now = int(time.time())
    assert (await send(app, signer, created=now)).status == 200
    redis.command("FLUSHALL")

    again = await send(app, signer, created=now)
    early = await send(app, signer, created=now + WINDOW_S)
    # Later, with a signature that no worker could have accepted before.
    redis.command("SET", since_key(app), str(now - WINDOW_S - SKEW_S - 1))
    later = await send(app, signer, created=now)

    assert_problem(again, 503, "unavailable")
    assert WINDOW_S + SKEW_S <= int(again.headers["retry-after"]) <= WINDOW_S + SKEW_S + 5
    assert_problem(early, 503, "unavailable")
    assert later.status == 200


async def test_explanations_and_verifications_know_used_nonces(app: Starlette, signer: HeldKey) -> None:
    claim = NonceClaim.of_nonce(signer.access_key, "n" * 20, int(time.time()))
    replays: Replays = app.state.latchkey.replays

    async with app.state.db.scoped_session() as session:
        before = await replays.nonces.is_used(session, claim)
        await replays.reserve(claim)
        after = await replays.nonces.is_used(session, claim)

    assert (before, after) == (False, True)


@pytest.mark.parametrize("how", ["killed", "silent"])
async def test_without_redis_a_signed_call_is_refused_in_time(
    app: Starlette, operator: HeldKey, signer: HeldKey, redis: PrivateRedis, how: str
) -> None:
    """Calls without a nonce go on, and a Redis that comes back with its memory is used at once."""
    assert (await send(app, signer)).status == 200
    with away(redis, how):
        begun = time.monotonic()
        refused = await asyncio.gather(*(send(app, signer, nonce=f"n0nce-{one:016}") for one in range(20)))
        took_s = time.monotonic() - begun
        bearer = await call(app, "GET", "/v1/me", key=operator)
    again = await send(app, signer)
    new = await send(app, signer, nonce="n0nce-of-a-new-call-x")

    assert {one.status for one in refused} == {503}
    assert all(one.headers["retry-after"] for one in refused)
    assert took_s < TIMEOUT_S + 0.7, "one wait, and not two"
    assert bearer.status == 200
    assert_problem(again, 401, "replayed")
    assert new.status == 200


@contextlib.contextmanager
def away(redis: PrivateRedis, how: str) -> Iterator[None]:
    if how == "killed":
        redis.kill()
        yield
        redis.start()
    else:
        os.kill(redis.pid, signal.SIGSTOP)
        yield
        os.kill(redis.pid, signal.SIGCONT)


async def test_a_nonce_is_known_after_a_failover_by_sentinel(settings: Settings) -> None:
    """A replica has confirmed each nonce before its call was accepted. Without a replica, no call is accepted."""
    claim, second = [NonceClaim.of_nonce("lka_1", name * 20, int(time.time())) for name in "ab"]
    with contextlib.ExitStack() as servers:
        master = servers.enter_context(PrivateRedis(keeps=True))
        follow = ("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")
        replicas = [servers.enter_context(PrivateRedis(*follow, keeps=True)) for _ in range(2)]
        sentinel = servers.enter_context(PrivateRedis.sentinel_of(master))
        until(lambda: all(b"master_link_status:up" in one.command("INFO", "replication") for one in replicas))
        until(lambda: knows(sentinel, replicas))
        store = open_store(msgspec.structs.replace(settings, redis_url=sentinel.url_of_sentinel))
        assert store is not None
        worker = Replays(RedisNonces(store, early_s=WINDOW_S + SKEW_S), WINDOW_S)
        master.command("SET", since_of(store), LONG_AGO)
        await store.require_usable()
        first = await worker.reserve(claim)
        master.kill()
        begun = time.monotonic()
        again = await until_reserved(worker, claim, begun)
        next(one for one in replicas if b"role:slave" in one.command("INFO", "replication")).kill()
        with pytest.raises(UnreachableError, match="no replica"):
            await worker.reserve(second)
        await store.close()

    assert (first, again) == (True, False)


async def until_reserved(worker: Replays, claim: NonceClaim, begun: float) -> bool:
    """Try until there is a master again; each attempt ends in time."""
    while True:
        started = time.monotonic()
        try:
            return await worker.reserve(claim)
        except UnreachableError:
            assert time.monotonic() - started < TIMEOUT_S + 0.5
            assert time.monotonic() - begun < 20
            await asyncio.sleep(0.05)


def knows(sentinel: PrivateRedis, replicas: Sequence[PrivateRedis]) -> bool:
    found = sentinel.command("SENTINEL", "REPLICAS", MASTER)
    return all(str(one.port).encode() in found for one in replicas)


def until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


FORGETFUL = {
    "without a file": ([], {}, "appendonly yes"),
    "with eviction": (["--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"], {"keeps": True}, "noeviction"),
}  # fmt: skip


@pytest.mark.parametrize("options, keeps, advice", FORGETFUL.values(), ids=FORGETFUL)
async def test_a_redis_that_would_forget_is_refused_at_the_start(
    settings: Settings, options: list[str], keeps: dict[str, bool], advice: str
) -> None:
    with PrivateRedis(*options, **keeps) as forgetful:
        settings = msgspec.structs.replace(settings, redis_url=forgetful.url)
        async with opened(lambda: create_app(settings), settings) as app:
            with pytest.raises(SettingsError, match=advice):
                async with lifespan(app):
                    pass
        with pytest.raises(SettingsError, match=advice):
            await require_usable(settings, (), app.state.latchkey.keyring)


async def test_a_redis_is_needed(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_NONCES=redis needs a Redis"):
        create_app(msgspec.structs.replace(settings, redis_url=None, keyring=KEYRING))
