"""Four processes with key caches: a change in one of them soon takes effect in all."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.app import create_app
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.key_cache.revocations import TRUST_S
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import KEYRING, on_mariadb, opened
from tests.mariadb import PrivateMariaDB
from tests.processes import Served
from tests.redis import PrivateRedis

pytestmark = on_mariadb

PROCESSES = 4
SHORT_S = 3
AT_ONCE_S = 0.5  # with Redis; a few milliseconds, but on a machine that does much else
SLACK_S = 0.5
PARTNER = "partner@example.com"


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Starlette]:
    """Return the application in this process, without a cache and without Redis, to create keys."""
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


@contextlib.contextmanager
def four_processes(folder: Path, **environ: str) -> Iterator[list[Served]]:
    """Run `python -m latchkey serve` four times, each on its own port."""
    folders = [folder / str(number) for number in range(PROCESSES)]
    for place in folders:
        place.mkdir()
    environ = {"LATCHKEY_KEYRING": KEYRING, "LATCHKEY_AUTH_FAILURES_PER_MIN": "0", **environ}
    made = [Served(one, "serve", environ=environ) for one in folders]
    with contextlib.ExitStack() as running, ThreadPoolExecutor(PROCESSES) as together:
        for one in made:
            running.push(one)
        yield list(together.map(Served.__enter__, made))
        assert list(together.map(Served.stop, made)) == [0] * PROCESSES
    for one in made:
        assert "Traceback" not in one.err.read_text()


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[PrivateRedis]:
    with PrivateRedis() as redis:
        yield redis


@pytest.fixture(scope="module")
def with_redis(
    mariadb_url: str, shared_redis: PrivateRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Served]]:
    """Cache keys for an hour."""
    with four_processes(
        tmp_path_factory.mktemp("with"),
        LATCHKEY_DATABASE_URL=mariadb_url,
        LATCHKEY_KEY_CACHE_TTL_S="3600",
        LATCHKEY_REDIS_URL=shared_redis.url,
    ) as processes:
        yield processes


@pytest.fixture(scope="module")
def without_redis(mariadb_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    """Cache keys for seconds, without a connection between the processes."""
    with four_processes(
        tmp_path_factory.mktemp("without"),
        LATCHKEY_DATABASE_URL=mariadb_url,
        LATCHKEY_KEY_CACHE_TTL_S=str(SHORT_S),
    ) as processes:
        yield processes


class Four(msgspec.Struct):
    """The processes, their clients, a key with all scopes, and a partner's key of each mode."""

    clients: list[httpx2.AsyncClient]
    operator: HeldKey
    partners: dict[str, HeldKey]
    mariadb: PrivateMariaDB
    at: int = 0
    """The number of the process at which something is changed."""

    async def statuses(self, key: HeldKey) -> list[int]:
        """Read the caller in every process."""
        return [await who(client, key) for client in self.clients]

    async def queries(self, key: HeldKey) -> int:
        """Count the SELECTs for several reads in every process.

        The processes also read beside requests, so the smallest of several counts is that of the requests.
        """
        counts = []
        for _ in range(5):
            before = self._selects()
            for _ in range(3):
                await self.statuses(key)
            counts.append(self._selects() - before)
            if not counts[-1]:
                break
        return min(counts)

    def _selects(self) -> int:
        return int(self.mariadb.execute("SHOW GLOBAL STATUS LIKE 'Com_select'").split()[1])

    async def warm_up(self) -> None:
        """Call until no call with a known key costs a query."""
        async with asyncio.timeout(20):
            for key in (self.operator, *self.partners.values()):
                while await self.queries(key):
                    pass

    async def change(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """Change something in one process."""
        answer = await self.clients[self.at].request(
            method, path, headers=dict([self.operator.bearer]), json=body
        )
        assert answer.is_success, answer.text
        return answer

    async def in_force_s(self, key: HeldKey, status: int, since: float) -> float:
        """Call until all processes give this answer; return the seconds from `since` to the last other answer."""
        latest = since
        async with asyncio.timeout(60):
            while set(await self.statuses(key)) != {status}:
                latest = time.monotonic()
        return latest - since


async def who(client: httpx2.AsyncClient, key: HeldKey) -> int:
    if key.mode == "bearer":
        answer = await client.get("/v1/me", headers=dict([key.bearer]))
    else:
        query, proof = sign_query(key.secret, "", key.access_key, time.time())
        answer = await client.get(f"/v1/me?{query}", headers={"secret": proof})
    return answer.status_code


@pytest.fixture(params=["with_redis"])
async def four(
    request: pytest.FixtureRequest, app: Starlette, mariadb: PrivateMariaDB
) -> AsyncIterator[Four]:
    """Return processes with Redis, unless a test requests otherwise."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=one.url, timeout=30))
            for one in request.getfixturevalue(request.param)
        ]
        partners = {mode: await hold_key(app, email=PARTNER, mode=mode) for mode in ("bearer", "signed")}
        four = Four(clients, await hold_key(app), partners, mariadb)
        await four.warm_up()
        yield four


async def revoke(four: Four, key: HeldKey) -> None:
    await four.change("DELETE", f"/v1/keys/{key.access_key}")


async def block(four: Four, key: HeldKey) -> None:
    await four.change("PATCH", f"/v1/users/{key.user_id}", {"status": "blocked"})


async def rotate(four: Four, key: HeldKey) -> None:
    """Rotate without a grace period; the new secret is valid everywhere at once."""
    answer = await four.change("POST", f"/v1/keys/{key.access_key}/rotate", {"grace_s": 0})
    new = msgspec.structs.replace(key, secret=answer.json()["secret"])
    if key.mode == "bearer":
        assert await four.statuses(new) == [200] * PROCESSES


async def delete_owner(four: Four, key: HeldKey) -> None:
    await four.change("DELETE", f"/v1/users/{key.user_id}")


Change = Callable[[Four, HeldKey], Awaitable[None]]
CHANGES: list[Change] = [revoke, block, rotate, delete_owner]
each_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


@each_change
@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_with_redis_a_change_is_in_force_everywhere_at_once(
    four: Four, change: Change, mode: str
) -> None:
    key = four.partners[mode]
    four.at = CHANGES.index(change)  # each of them at another one
    cached = await four.queries(key)
    await change(four, key)
    answered = time.monotonic()

    assert cached == 0
    assert await four.in_force_s(key, 401, answered) < AT_ONCE_S


async def test_with_redis_a_new_key_is_known_everywhere_at_once(four: Four) -> None:
    owner = four.partners["bearer"].user_id
    body = {"user_id": owner, "name": "new", "mode": "bearer", "scopes": []}
    made = (await four.change("POST", "/v1/keys", body)).json()
    new = HeldKey(id=0, user_id=owner, access_key=made["access_key"], secret=made["secret"], mode="bearer")

    assert await four.statuses(new) == [200] * PROCESSES
    assert [await four.queries(key) for key in four.partners.values()] == [0, 0]


async def test_redis_killed_switches_the_caches_off_and_its_return_on(
    four: Four, shared_redis: PrivateRedis
) -> None:
    bearer, signed = four.partners.values()
    shared_redis.kill()
    await revoke(four, bearer)
    answered = time.monotonic()

    took_s = await four.in_force_s(bearer, 401, answered)
    await asyncio.sleep(max(0.0, answered + TRUST_S - time.monotonic()))
    off = await four.queries(signed)
    shared_redis.start()
    await four.warm_up()
    await revoke(four, signed)
    back_s = await four.in_force_s(signed, 401, time.monotonic())

    assert took_s < TRUST_S + SLACK_S
    assert off == 3 * PROCESSES
    assert back_s < AT_ONCE_S


@pytest.mark.parametrize("mode", ["bearer", "signed"])
@pytest.mark.parametrize("four", ["without_redis"], indirect=True)
async def test_without_redis_a_change_is_in_force_within_the_ttl(four: Four, mode: str) -> None:
    key = four.partners[mode]
    await revoke(four, key)
    answered = time.monotonic()
    others = await four.statuses(key)

    took_s = await four.in_force_s(key, 401, answered)

    assert others[0] == 401  # the process that was asked to revoke
    assert 200 in others[1:]  # the others use their caches
    assert took_s < SHORT_S + SLACK_S
