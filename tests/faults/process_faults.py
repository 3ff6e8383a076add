"""The faults of the processes of the service, of its clients, and of the servers beside the database."""

import asyncio
import os
import signal
from typing import Literal

from tests.faults.faults import CLAIM, COMMIT, EFFECT, fault, hold_once
from tests.faults.servers import ReplicatingMariaDB
from tests.faults.stage import Stage
from tests.redis import PrivateRedis
from tests.server.database_proxy import DatabaseProxy

# ---------------------------------------------------------------------- the processes of the service


def killed_at(place: str, words: bytes, when: Literal["before", "after"]) -> None:
    """Add a fault: the process is killed at a point of a write."""

    @fault(f"process killed {place}", ends_process=True)
    async def kill(stage: Stage) -> None:
        async with stage.injected():
            await hold_once(stage, words, when)
            stage.served[0].process.send_signal(signal.SIGSTOP)  # nothing is sent after that point
            await stage.kill_process()


@fault("process killed at any time", ends_process=True)
async def kill_process(stage: Stage) -> None:
    for _ in range(2):
        async with stage.injected():
            await stage.kill_process()


killed_at("after the claim of an Idempotency-Key", CLAIM, "after")
killed_at("before an INSERT", EFFECT, "before")
killed_at("after an INSERT", EFFECT, "after")
killed_at("before COMMIT reaches the server", COMMIT, "before")
killed_at("after COMMIT, before its answer", COMMIT, "after")


@fault("process ended by SIGTERM, and started again", ends_process=True)
async def end_process(stage: Stage) -> None:
    async with stage.injected():
        await stage.end_process()
        await asyncio.to_thread(stage.served[0].__enter__)


@fault("SIGTERM while the database is frozen", ends_process=True)
async def end_process_of_frozen_server(stage: Stage) -> None:
    async with stage.injected():
        with stage.mariadb.frozen():
            await asyncio.sleep(0.5)
            await stage.end_process()
        await asyncio.to_thread(stage.served[0].__enter__)


@fault("process frozen for 2 s (SIGSTOP)")
async def freeze_process(stage: Stage) -> None:
    async with stage.injected():
        stage.served[0].process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2)
        stage.served[0].process.send_signal(signal.SIGCONT)


# ---------------------------------------------------------------------- its clients


@fault("clients that leave in the middle of a call")
async def leave_early(stage: Stage) -> None:
    body = b'{"email":"left@example.com","name":"left"}'
    head = b"POST /v1/users HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    _, bearer = stage.keys[0].bearer
    call = head + b"authorization: %s\r\ncontent-length: %d\r\n\r\n" % (bearer.encode(), len(body)) + body
    for number in range(60):
        async with stage.injected(after=1):
            _, writer = await asyncio.open_connection("127.0.0.1", stage.served[0].port)
            writer.write(call[: len(call) - number % 20])
            await asyncio.sleep(number % 5 * 0.005)
            writer.transport.abort()


# ---------------------------------------------------------------------- the servers beside the database


async def with_replica(stage: Stage) -> dict[str, str]:
    """Put a proxy before the replica, which is the primary itself: it is never behind."""
    assert stage.mariadb.port is not None
    stage.replica = await stage.closing.enter_async_context(DatabaseProxy(stage.mariadb.port))
    return {"LATCHKEY_READER_URL": stage.url(stage.replica.port)}


@fault("replica down for 3 s", prepare=with_replica)
async def lose_replica(stage: Stage) -> None:
    async with stage.injected():
        port, stage.replica.server_port = stage.replica.server_port, 1
        stage.replica.cut()
        await asyncio.sleep(3)
        stage.replica.server_port = port


@fault("replica silent for 4 s", prepare=with_replica)
async def silence_replica(stage: Stage) -> None:
    async with stage.injected():
        stage.replica.hold(b"", "before", whole=True)
        await asyncio.sleep(4)
        stage.replica.release()
        stage.replica.cut()


async def with_redis(stage: Stage) -> dict[str, str]:
    """Let the service cache keys, with Redis as its channel."""
    stage.redis = stage.closing.enter_context(PrivateRedis())
    return {"LATCHKEY_KEY_CACHE_TTL_S": "60", "LATCHKEY_REDIS_URL": stage.redis.url}


@fault("Redis killed for 2 s", prepare=with_redis)
async def kill_redis(stage: Stage) -> None:
    async with stage.injected():
        stage.redis.kill()
        await asyncio.sleep(2)
        await asyncio.to_thread(stage.redis.start)


@fault("Redis frozen for 4 s (SIGSTOP)", prepare=with_redis)
async def freeze_redis(stage: Stage) -> None:
    async with stage.injected():
        os.kill(stage.redis.pid, signal.SIGSTOP)
        await asyncio.sleep(4)
        os.kill(stage.redis.pid, signal.SIGCONT)


# ---------------------------------------------------------------------- failover


async def with_standby(stage: Stage) -> dict[str, str]:
    """Start a replica that can become the primary."""
    stage.standby = await asyncio.to_thread(stage.closing.enter_context, ReplicatingMariaDB(2))
    await asyncio.to_thread(stage.standby.follow, stage.mariadb)
    return {}


@fault("failover behind one name: the old primary keeps its connections", prepare=with_standby)
async def fail_over(stage: Stage) -> None:
    """The old primary takes no more writes, and new connections reach the new one."""
    async with stage.injected():
        await stage.sql("SET GLOBAL read_only = 1")
        await asyncio.to_thread(stage.standby.take_over, stage.mariadb)
        assert stage.standby.port is not None
        stage.proxy.server_port = stage.standby.port
    stage.primary = stage.standby


@fault("failover: the old primary is killed", prepare=with_standby)
async def fail_over_from_killed(stage: Stage) -> None:
    async with stage.injected():
        await stage.sql("SET GLOBAL read_only = 1")
        await asyncio.to_thread(stage.standby.take_over, stage.mariadb)
        await asyncio.to_thread(stage.mariadb.kill)
        assert stage.standby.port is not None
        stage.proxy.server_port = stage.standby.port
    stage.primary = stage.standby
