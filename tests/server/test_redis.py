"""Nonces and limits in Redis are exact over several processes, by the same tests as those in the database."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models.limit import Credits, Quota
from latchkey.service.app import create_app
from latchkey.service.authentication.nonces import RedisNonces
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import on_mariadb, opened
from tests.processes import Served
from tests.redis import PrivateRedis
from tests.server.conftest import running
from tests.server.test_limits import CALLS, CASES, EMAIL, assert_exact, left, spend
from tests.server.test_processes import assert_one_is_accepted, message, query
from tests.service.limits.rules import limit, limit_owner

pytestmark = on_mariadb


@pytest.fixture(scope="module")
def keeping() -> Iterator[PrivateRedis]:
    with PrivateRedis(keeps=True) as server:
        yield server


@pytest.fixture(scope="module")
def processes(
    mariadb_url: str, tmp_path_factory: pytest.TempPathFactory, keeping: PrivateRedis
) -> Iterator[list[Served]]:
    in_redis = {
        "LATCHKEY_REDIS_URL": keeping.url,
        "LATCHKEY_NONCES": "redis",
        "LATCHKEY_LIMITS": "redis",
    }
    with running(mariadb_url, tmp_path_factory, **in_redis) as started:
        yield started


@pytest.fixture
async def app(settings: Settings, keeping: PrivateRedis) -> AsyncIterator[Starlette]:
    """Return the application in this process, whose Redis has had its memory for long."""
    settings = msgspec.structs.replace(settings, redis_url=keeping.url, nonces="redis", limits="redis")
    async with opened(lambda: create_app(settings), settings) as app:
        nonces = app.state.latchkey.replays.nonces
        assert isinstance(nonces, RedisNonces)
        keeping.command("FLUSHALL")
        keeping.command("SET", nonces._since.decode(), "1")
        yield app
        await app.state.latchkey.redis_store.close()
        await app.state.latchkey.revocations.close()


@pytest.mark.parametrize("limits, quota, owners, through, remaining", CASES[1::2])
async def test_four_processes_let_exactly_so_many_through(
    app: Starlette,
    processes: list[Served],
    limits: list[Any],
    quota: Quota | None,
    owners: list[Any],
    through: int,
    remaining: dict[str, int],
) -> None:
    await assert_exact(app, [one.port for one in processes], limits, quota, owners, through, remaining)
    async with app.state.db.reader.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT COUNT(*) FROM limit_counters")).scalar_one() == 0


async def test_a_key_with_credits_is_charged_in_the_database_and_its_owner_in_redis(
    app: Starlette, processes: list[Served]
) -> None:
    """A call that the credits refuse costs the owner nothing."""
    key = await hold_key(app, scopes=[], email=EMAIL, credits=Credits(remaining=300))
    await limit_owner(app, key.user_id, limit("many", 2000, 3600))

    statuses = await spend([one.port for one in processes], key)

    assert statuses == {200: 300, 402: CALLS - 300}
    assert await left(app, key) == {"credits": 0, "owner.many": 1700}


@pytest.mark.parametrize(
    "make, success", [pytest.param(message, 201, id="message"), pytest.param(query, 201, id="query")]
)
async def test_one_of_fifty_copies_is_accepted(
    app: Starlette, processes: list[Served], make: Callable[[HeldKey], bytes], success: int
) -> None:
    signer = await hold_key(app, mode="signed")

    await assert_one_is_accepted(processes, make(signer), success)
