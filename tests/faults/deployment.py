"""The deployment of one fault: a database behind a proxy, and processes of the service."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from latchkey.service.app import create_app
from latchkey.service.commands.server import GRACE_S
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings
from tests.api import HeldKey, hold_key
from tests.conftest import KEYRING, migrate
from tests.faults.load import Load
from tests.faults.servers import ReplicatingMariaDB
from tests.processes import Served
from tests.redis import PrivateRedis
from tests.server.database_proxy import DatabaseProxy

CLIENTS = 8
DATABASE_TIMEOUT_S = 2.0
POOL_TIMEOUT_S = 1.0
LOCK_WAIT_S = 1
BUDGET_S = POOL_TIMEOUT_S + DATABASE_TIMEOUT_S
SETTLING_S = 2.0  # within which the service works again after a fault
AFTERWARDS_S = 2.5  # how long the load goes on after a fault
ERROR_TEXTS = ("Traceback", "checked out", "garbage collector", "never retrieved", "never awaited")

_USERS = "SELECT id, SUBSTRING_INDEX(email, '@', 1), name FROM users"


class Result(msgspec.Struct, kw_only=True):
    """A row of the table in `docs/reliability.md`."""

    fault: str
    times: int
    requests: int
    acknowledged: int
    lost: int
    doubled: int
    """Calls that ran twice, so that they found their own row, and rows of calls that got a 503."""
    leaked: int
    """Transactions that stayed open, and errors in the log."""
    worst_gap_s: float
    slowest_s: float
    recovered_s: float
    outcomes: Mapping[str, int]
    log_errors: list[str]


class Deployment:
    """The deployment that a fault acts on: `mariadb`, the `proxy` before it, the `served` processes, and the `load`."""

    replica: DatabaseProxy
    redis: PrivateRedis
    standby: ReplicatingMariaDB

    def __init__(
        self, mariadb: ReplicatingMariaDB, proxy: DatabaseProxy, folder: Path, keys: Sequence[HeldKey] = ()
    ) -> None:
        self.mariadb = self.primary = mariadb
        self.keys = keys
        self.proxy = proxy
        self.folder = folder
        self.served: list[Served] = []
        self.load: Load
        self.times = 0
        self.log_errors: list[str] = []
        self.database = "faults"
        self.closing = contextlib.AsyncExitStack()

    def url(self, port: int | None) -> str:
        """Return the URL of the database at a port."""
        return self.mariadb.url_of(self.database).replace(f":{self.mariadb.port}/", f":{port}/")

    async def sql(self, statements: str, *, may_fail: bool = False) -> str:
        """Run statements as root."""
        return await asyncio.to_thread(self.mariadb.execute, statements, may_fail=may_fail)

    @asynccontextmanager
    async def injected(self, *, after: int = 20) -> AsyncIterator[None]:
        """Count a fault that lasts for the block; that many calls of the load have succeeded before it."""
        await self.load.until_successes(after)
        self.times += 1
        yield

    async def start(self, environ: Mapping[str, str]) -> Served:
        """Start another process of the service."""
        folder = self.folder / f"process{len(self.served)}"
        folder.mkdir()
        served = Served(folder, "serve", environ={**self.environ, **environ})
        self.served.append(served)
        await asyncio.to_thread(served.__enter__)
        return served

    @property
    def environ(self) -> dict[str, str]:
        return {
            "LATCHKEY_DATABASE_URL": self.url(self.proxy.port),
            "LATCHKEY_KEYRING": KEYRING,
            "LATCHKEY_DATABASE_TIMEOUT_S": str(DATABASE_TIMEOUT_S),
            "LATCHKEY_POOL_TIMEOUT_S": str(POOL_TIMEOUT_S),
            "LATCHKEY_LOCK_WAIT_S": str(LOCK_WAIT_S),
            "LATCHKEY_KEYS_PER_OWNER": "1000000",
        }

    async def kill_process(self) -> None:
        """Kill the process of the service, and start it again."""
        served = self.served[0]
        served.process.kill()
        served.process.wait()
        self.proxy.cut()  # a held command would keep the connections of the process open on the server
        self._read_log(served)
        await asyncio.to_thread(served.__enter__)

    async def end_process(self) -> None:
        """End the process of the service by SIGTERM."""
        served = self.served[0]
        begun = time.monotonic()
        code = await asyncio.to_thread(served.stop)
        if code or time.monotonic() - begun > GRACE_S + 1:
            self.log_errors.append(f"it ended with code {code} after {time.monotonic() - begun:.1f} s")
        self._read_log(served)

    async def stop(self) -> None:
        """End the processes, and read their logs."""
        for one in self.served:
            if one.process.poll() is None:
                await self.end_process()

    def _read_log(self, served: Served) -> None:
        lines = served.err.read_text().splitlines()
        self.log_errors += [line for line in lines if any(words in line for words in ERROR_TEXTS)]


async def make_keys(url: str, number: int) -> list[HeldKey]:
    """Return keys of as many owners."""
    app = create_app(Settings(database_url=url, keyring=KEYRING))
    try:
        return [
            await hold_key(app, email=f"client{one}@example.com", scopes=["users:read", "users:write"])
            for one in range(number)
        ]
    finally:
        await SQLAlchemy().close()


async def run_fault(
    name: str,
    inject: Callable[[Deployment], Any],
    mariadb: ReplicatingMariaDB,
    folder: Path,
    *,
    prepare: Callable[[Deployment], Any] | None = None,
) -> Result:
    """Inject a fault under load, and compare what was answered with what was stored."""
    assert mariadb.port is not None
    async with DatabaseProxy(mariadb.port) as proxy:
        deployment = Deployment(mariadb, proxy, folder)
        await asyncio.to_thread(mariadb.create_database, deployment.database)
        await migrate(Settings(database_url=deployment.url(mariadb.port)))
        deployment.keys = keys = await make_keys(deployment.url(mariadb.port), CLIENTS)
        try:
            environ = {} if prepare is None else await prepare(deployment)
            await deployment.start(environ)
            async with Load([deployment.served[0].url], keys) as load:
                deployment.load = load
                await inject(deployment)
                ended = time.monotonic()
                await asyncio.sleep(AFTERWARDS_S)
            leaked = await open_transactions(deployment)
        finally:
            await deployment.stop()
            proxy.release()
            proxy.cut()
        rows = await asyncio.to_thread(deployment.primary.execute, f"USE {deployment.database}; {_USERS}")
        await deployment.closing.aclose()
        if mariadb.is_running:
            await asyncio.to_thread(mariadb.execute, "SET GLOBAL read_only = 0")
        else:
            await asyncio.to_thread(mariadb.start)
    users = [line.split("\t") for line in rows.splitlines()]
    stored = {name for _, name, _ in users}
    last = {int(id_): name for id_, _, name in users}
    overwritten = sum(int(last[id_]) < counter for id_, counter in load.changed.items())
    return Result(
        fault=name,
        times=deployment.times,
        requests=len(load.calls),
        acknowledged=sum(call.succeeded and call.is_write for call in load.calls),
        lost=len(load.acknowledged - stored) + overwritten,
        doubled=len(load.refused & stored) + load.outcomes["409 email_taken"],
        leaked=leaked + len(deployment.log_errors),
        worst_gap_s=load.worst_gap_s,
        slowest_s=load.slowest_s,
        recovered_s=load.recovered_s(ended),
        outcomes=load.outcomes,
        log_errors=deployment.log_errors,
    )


async def open_transactions(deployment: Deployment) -> int:
    """Return how many transactions are open a second after the load."""
    found = 0
    for _ in range(20):
        with contextlib.suppress(OSError):
            found = await deployment.primary.open_transactions(deployment.database)
        if not found:
            break
        await asyncio.sleep(0.05)
    return found
