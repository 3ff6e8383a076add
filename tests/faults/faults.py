"""The faults of the database and of the network to it: each fails under load, and then works again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from tests.faults.deployment import Deployment

Inject = Callable[[Deployment], Awaitable[None]]
Prepare = Callable[[Deployment], Awaitable[dict[str, str]]]

HELD_WITHIN_S = 10


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault, and what it may cost."""

    name: str
    inject: Inject
    prepare: Prepare | None = None
    """Starts further servers, and returns settings of the service."""
    is_short: bool = False
    """Run it in the suite too."""
    ends_process: bool = False
    """The process of the service ends, so that calls get no answer meanwhile."""


FAULTS: list[Fault] = []


def fault(name: str, **options: Any) -> Callable[[Inject], Inject]:
    """Add a function to the faults."""

    def add(inject: Inject) -> Inject:
        FAULTS.append(Fault(name=name, inject=inject, **options))
        return inject

    return add


async def hold_once(deployment: Deployment, words: bytes, when: Literal["before", "after"]) -> None:
    """Hold the first command with these words, for ever."""
    deployment.proxy.held.clear()
    deployment.proxy.hold(words, when)
    async with asyncio.timeout(HELD_WITHIN_S):
        await deployment.proxy.held.wait()
    deployment.proxy.release()


# ---------------------------------------------------------------------- the server of the database


@fault("server killed and restarted")
async def kill_server(deployment: Deployment) -> None:
    for _ in range(2):
        async with deployment.injected():
            await asyncio.to_thread(deployment.mariadb.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(deployment.mariadb.start)


@fault("server shut down and started")
async def restart_server(deployment: Deployment) -> None:
    async with deployment.injected():
        await deployment.sql("SHUTDOWN")
        await asyncio.to_thread(deployment.mariadb.wait)
        await asyncio.to_thread(deployment.mariadb.start)


@fault("server frozen for 4 s (SIGSTOP)")
async def freeze_server(deployment: Deployment) -> None:
    async with deployment.injected():
        with deployment.mariadb.frozen():
            await asyncio.sleep(4)


@fault("server frozen for 0.5 s")
async def freeze_server_briefly(deployment: Deployment) -> None:
    for _ in range(3):
        async with deployment.injected():
            with deployment.mariadb.frozen():
                await asyncio.sleep(0.5)


@fault("all connections killed by the server", is_short=True)
async def kill_connections(deployment: Deployment) -> None:
    for _ in range(5):
        async with deployment.injected():
            await asyncio.to_thread(deployment.mariadb.kill_connections)


@fault("all statements killed by the server")
async def kill_statements(deployment: Deployment) -> None:
    for _ in range(20):
        async with deployment.injected():
            await deployment.sql(await asyncio.to_thread(deployment.mariadb.kills, "QUERY"), may_fail=True)


@fault("no connection left for 1 s (1040)")
async def exhaust_connections(deployment: Deployment) -> None:
    async with deployment.injected():
        kills = await asyncio.to_thread(deployment.mariadb.kills)
        await deployment.sql(
            f"SET GLOBAL max_connections = 10; {kills} SELECT SLEEP(1); SET GLOBAL max_connections = 151",
            may_fail=True,
        )


@fault("account locked for 1 s (4151)")
async def lock_account(deployment: Deployment) -> None:
    async with deployment.injected():
        kills = await asyncio.to_thread(deployment.mariadb.kills)
        await deployment.sql(
            f"ALTER USER 'app'@'127.0.0.1' ACCOUNT LOCK; {kills} SELECT SLEEP(1);"
            "ALTER USER 'app'@'127.0.0.1' ACCOUNT UNLOCK",
            may_fail=True,
        )


@fault("read_only = 1 for 2 s (1290)", is_short=True)
async def make_read_only(deployment: Deployment) -> None:
    async with deployment.injected():
        await deployment.sql("SET GLOBAL read_only = 1; SELECT SLEEP(2); SET GLOBAL read_only = 0")


@fault("INSERTs refused for 2 s as on a full disk (1114)")
async def refuse_inserts(deployment: Deployment) -> None:
    async with deployment.injected():
        signal = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'"
        await deployment.sql(
            f"USE {deployment.database}; CREATE TRIGGER full BEFORE INSERT ON users FOR EACH ROW {signal};"
            "SELECT SLEEP(2); DROP TRIGGER full"
        )


# ---------------------------------------------------------------------- locks of other programs


@fault("table locked for 3 s by another program")
async def lock_table(deployment: Deployment) -> None:
    async with deployment.injected():
        await deployment.sql(f"LOCK TABLES {deployment.database}.users WRITE; SELECT SLEEP(3); UNLOCK TABLES")


@fault("global read lock for 3 s (a backup)")
async def lock_everything(deployment: Deployment) -> None:
    async with deployment.injected():
        await deployment.sql("FLUSH TABLES WITH READ LOCK; SELECT SLEEP(3); UNLOCK TABLES")


@fault("row of one owner locked for 3 s by another program")
async def lock_row(deployment: Deployment) -> None:
    async with deployment.injected():
        await deployment.sql(
            f"USE {deployment.database}; BEGIN; SELECT id FROM users WHERE email_key = 'client2@example.com' FOR UPDATE;"
            "SELECT SLEEP(3); ROLLBACK"
        )


@fault("deadlocks with another program (1213)")
async def deadlock(deployment: Deployment) -> None:
    lock_rows = "SELECT id FROM users FOR UPDATE; SELECT SLEEP(0.05); SELECT id FROM api_keys FOR UPDATE"
    for _ in range(10):
        async with deployment.injected():
            await deployment.sql(f"USE {deployment.database}; BEGIN; {lock_rows}; ROLLBACK", may_fail=True)


# ---------------------------------------------------------------------- the network to the database


@fault("connections reset", is_short=True)
async def reset_connections(deployment: Deployment) -> None:
    for _ in range(5):
        async with deployment.injected():
            deployment.proxy.cut()


@fault("connections forgotten by a balancer: reset at the next command")
async def forget_connections(deployment: Deployment) -> None:
    for _ in range(5):
        async with deployment.injected():
            deployment.proxy.reset_at_next_command()


@fault("new connections accepted and closed for 1 s")
async def close_new_connections(deployment: Deployment) -> None:
    async with deployment.injected():
        port, deployment.proxy.server_port = deployment.proxy.server_port, 1
        deployment.proxy.cut()
        await asyncio.sleep(1)
        deployment.proxy.server_port = port


@fault("new connections accepted and not greeted for 4 s")
async def ignore_new_connections(deployment: Deployment) -> None:
    async with deployment.injected():
        deployment.proxy.is_deaf = True
        deployment.proxy.cut()
        await asyncio.sleep(4)
        deployment.proxy.is_deaf = False


@fault("network silent for 4 s, in all connections")
async def silence_network(deployment: Deployment) -> None:
    async with deployment.injected():
        deployment.proxy.hold(b"", "before", whole=True)
        await asyncio.sleep(4)
        deployment.proxy.release()
        deployment.proxy.cut()


def silent_in(place: str, words: bytes, when: Literal["before", "after"]) -> None:
    """Add a fault: the connection of one statement gets silent, and stays so."""

    @fault(f"connection silent in {place}")
    async def silence(deployment: Deployment) -> None:
        for _ in range(3):
            async with deployment.injected():
                await hold_once(deployment, words, when)


def reset_in(place: str, words: bytes, when: Literal["before", "after"]) -> None:
    """Add a fault: the connection of one statement is reset."""

    @fault(f"connections reset {place}")
    async def reset(deployment: Deployment) -> None:
        for _ in range(5):
            async with deployment.injected():
                await hold_once(deployment, words, when)
                deployment.proxy.cut()


LOOKUP, CLAIM, EFFECT, COMMIT = (
    b"SELECT api_keys.id",
    b"INSERT INTO idempotency_keys",
    b"INSERT INTO users",
    b"\x03COMMIT",
)

silent_in("the lookup of a key", LOOKUP, "before")
silent_in("an INSERT", EFFECT, "after")
silent_in("COMMIT", COMMIT, "after")
reset_in("after the claim of an Idempotency-Key", CLAIM, "after")
reset_in("after an INSERT", EFFECT, "after")
reset_in("before COMMIT reaches the server", COMMIT, "before")
reset_in("after COMMIT, before its answer", COMMIT, "after")
