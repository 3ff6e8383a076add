"""The faults of the processes of the service, of its clients, and of the servers beside the database."""

import asyncio
import os
import signal
from typing import Literal

from tests.faults.deployment import Deployment
from tests.faults.faults import CLAIM, COMMIT, EFFECT, fault, hold_once
from tests.faults.servers import ReplicatingMariaDB
from tests.redis import PrivateRedis
from tests.server.database_proxy import DatabaseProxy

# ---------------------------------------------------------------------- the processes of the service


def killed_at(place: str, words: bytes, when: Literal["before", "after"]) -> None:
    """Add a fault: the process is killed at a point of a write."""

    @fault(f"process killed {place}", ends_process=True)
    async def kill(deployment: Deployment) -> None:
        async with deployment.injected():
            await hold_once(deployment, words, when)
            deployment.served[0].process.send_signal(signal.SIGSTOP)  # nothing is sent after that point
            await deployment.kill_process()


@fault("process killed at any time", ends_process=True)
async def kill_process(deployment: Deployment) -> None:
    for _ in range(2):
        async with deployment.injected():
            await deployment.kill_process()


killed_at("after the claim of an Idempotency-Key", CLAIM, "after")
killed_at("before an INSERT", EFFECT, "before")
killed_at("after an INSERT", EFFECT, "after")
killed_at("before COMMIT reaches the server", COMMIT, "before")
killed_at("after COMMIT, before its answer", COMMIT, "after")


@fault("process ended by SIGTERM, and started again", ends_process=True)
async def end_process(deployment: Deployment) -> None:
    async with deployment.injected():
        await deployment.end_process()
        await asyncio.to_thread(deployment.served[0].__enter__)


@fault("SIGTERM while the database is frozen", ends_process=True)
async def end_process_of_frozen_server(deployment: Deployment) -> None:
    async with deployment.injected():
        with deployment.mariadb.frozen():
            await asyncio.sleep(0.5)
            await deployment.end_process()
        await asyncio.to_thread(deployment.served[0].__enter__)


@fault("process frozen for 2 s (SIGSTOP)")
async def freeze_process(deployment: Deployment) -> None:
    async with deployment.injected():
        deployment.served[0].process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2)
        deployment.served[0].process.send_signal(signal.SIGCONT)


# ---------------------------------------------------------------------- its clients


@fault("clients that leave in the middle of a call")
async def leave_early(deployment: Deployment) -> None:
    body = b'{"email":"left@example.com","name":"left"}'
    head = b"POST /v1/users HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    _, bearer = deployment.keys[0].bearer
    call = head + b"authorization: %s\r\ncontent-length: %d\r\n\r\n" % (bearer.encode(), len(body)) + body
    for number in range(60):
        async with deployment.injected(after=1):
            _, writer = await asyncio.open_connection("127.0.0.1", deployment.served[0].port)
            writer.write(call[: len(call) - number % 20])
            await asyncio.sleep(number % 5 * 0.005)
            writer.transport.abort()


# ---------------------------------------------------------------------- the servers beside the database


async def with_replica(deployment: Deployment) -> dict[str, str]:
    """Put a proxy before the replica, which is the primary itself: it is never behind."""
    assert deployment.mariadb.port is not None
    deployment.replica = await deployment.closing.enter_async_context(DatabaseProxy(deployment.mariadb.port))
    return {"LATCHKEY_READER_URL": deployment.url(deployment.replica.port)}


@fault("replica down for 3 s", prepare=with_replica)
async def lose_replica(deployment: Deployment) -> None:
    async with deployment.injected():
        port, deployment.replica.server_port = deployment.replica.server_port, 1
        deployment.replica.cut()
        await asyncio.sleep(3)
        deployment.replica.server_port = port


@fault("replica silent for 4 s", prepare=with_replica)
async def silence_replica(deployment: Deployment) -> None:
    async with deployment.injected():
        deployment.replica.hold(b"", "before", whole=True)
        await asyncio.sleep(4)
        deployment.replica.release()
        deployment.replica.cut()


async def with_redis(deployment: Deployment) -> dict[str, str]:
    """Make the service cache keys, with Redis as its channel."""
    deployment.redis = deployment.closing.enter_context(PrivateRedis())
    return {"LATCHKEY_KEY_CACHE_TTL_S": "60", "LATCHKEY_REDIS_URL": deployment.redis.url}


@fault("Redis killed for 2 s", prepare=with_redis)
async def kill_redis(deployment: Deployment) -> None:
    async with deployment.injected():
        deployment.redis.kill()
        await asyncio.sleep(2)
        await asyncio.to_thread(deployment.redis.start)


@fault("Redis frozen for 4 s (SIGSTOP)", prepare=with_redis)
async def freeze_redis(deployment: Deployment) -> None:
    async with deployment.injected():
        os.kill(deployment.redis.pid, signal.SIGSTOP)
        await asyncio.sleep(4)
        os.kill(deployment.redis.pid, signal.SIGCONT)


async def with_counters_in_redis(deployment: Deployment) -> dict[str, str]:
    """Charge every call to a quota of its owner, in a Redis that keeps its memory."""
    deployment.redis = deployment.closing.enter_context(PrivateRedis(keeps=True))
    await deployment.sql(
        f"""USE {deployment.database}; UPDATE users SET quota = '{{"limit": 1000000000, "per": "day"}}'"""
    )
    return {"LATCHKEY_LIMITS": "redis", "LATCHKEY_REDIS_URL": deployment.redis.url}


@fault("Redis with the counters of quotas killed for 2 s", prepare=with_counters_in_redis)
async def kill_counters(deployment: Deployment) -> None:
    await kill_redis(deployment)


@fault("Redis with the counters of quotas frozen for 4 s (SIGSTOP)", prepare=with_counters_in_redis)
async def freeze_counters(deployment: Deployment) -> None:
    await freeze_redis(deployment)


# ---------------------------------------------------------------------- failover


async def with_standby(deployment: Deployment) -> dict[str, str]:
    """Start a replica that can become the primary."""
    deployment.standby = await asyncio.to_thread(deployment.closing.enter_context, ReplicatingMariaDB(2))
    await asyncio.to_thread(deployment.standby.follow, deployment.mariadb)
    return {}


@fault("failover behind one name: the old primary keeps its connections", prepare=with_standby)
async def fail_over(deployment: Deployment) -> None:
    """The old primary takes no more writes, and new connections reach the new one."""
    async with deployment.injected():
        await deployment.sql("SET GLOBAL read_only = 1")
        await asyncio.to_thread(deployment.standby.take_over, deployment.mariadb)
        assert deployment.standby.port is not None
        deployment.proxy.server_port = deployment.standby.port
    deployment.primary = deployment.standby


@fault("failover: the old primary is killed", prepare=with_standby)
async def fail_over_from_killed(deployment: Deployment) -> None:
    async with deployment.injected():
        await deployment.sql("SET GLOBAL read_only = 1")
        await asyncio.to_thread(deployment.standby.take_over, deployment.mariadb)
        await asyncio.to_thread(deployment.mariadb.kill)
        assert deployment.standby.port is not None
        deployment.proxy.server_port = deployment.standby.port
    deployment.primary = deployment.standby
