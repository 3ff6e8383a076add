"""What an installation keeps in Redis beside its database: nonces and the counters of limits.

The server must keep what it acknowledges: it writes an append-only file, and evicts nothing.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from latchkey.service.redis.client import (
    VARIABLE,
    UnreachableError,
    client_arguments,
    close_client,
    open_client,
    redis_request,
)
from latchkey.service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from redis.asyncio import Redis

OLDEST_VERSION = (6, 2)  # which has PXAT
CONFIRMATION_MS = 500  # for which a replica is waited for

Word = str | bytes | int


class Store:
    """The keys of one installation.

    All keys of one tag are in one slot of a Redis Cluster, so that one script may use them.

    Args:
        client: of redis-py.
        name: of the installation.
        connections: the maximum number of requests at the same time.
        has_replicas: whether a replica must confirm what must not be lost in a failover.
    """

    def __init__(self, client: "Redis", name: str, *, connections: int, has_replicas: bool = False) -> None:
        self._client = client
        self._name = name
        self._has_replicas = has_replicas
        self._room = asyncio.Semaphore(connections)

    def key(self, tag: Word, rest: str) -> bytes:
        """Return the name of a key."""
        return f"latchkey:{{{self._name}:{tag!s}}}:{rest}".encode()

    async def run(
        self, script: str, keys: Sequence[bytes], arguments: Iterable[Word], *, confirmed: bool = False
    ) -> Any:
        """Run a script, which is atomic, and return its result.

        Args:
            script: in Lua.
            keys: all that it uses, of one tag.
            arguments: of the script.
            confirmed: whether a replica must have received its changes, if there are replicas.

        Raises:
            UnreachableError: the server did not answer in time, or no replica did. Whether the script has run is unknown.
        """
        async with redis_request(), self._room:
            if not (confirmed and self._has_replicas):
                return await self._client.eval(script, len(keys), *keys, *arguments)
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.eval(script, len(keys), *keys, *arguments)
                pipeline.wait(1, CONFIRMATION_MS)
                result, replicas = await pipeline.execute()
        if not replicas:
            raise UnreachableError("no replica has confirmed a change, which a failover could lose")
        return result

    async def require_usable(self) -> None:
        """Raise an error for a server that would lose what it acknowledged.

        Raises:
            SettingsError: it is too old, no master, writes no append-only file, or evicts keys.
            UnreachableError: it cannot be reached.
        """
        async with redis_request():
            found: dict[str, Any] = await self._client.info("all")
        version = tuple(int(part) for part in str(found["redis_version"]).split(".")[:2])
        faults = {
            f"its version is {found['redis_version']}, and 6.2 is needed": version < OLDEST_VERSION,
            "it is no master": found["role"] != "master",
            "it writes no append-only file, so that a restart would lose nonces and counters: set appendonly yes":
                not found["aof_enabled"],
            f"it may evict keys: set maxmemory-policy noeviction, not {found['maxmemory_policy']}":
                bool(found["maxmemory"]) and found["maxmemory_policy"] != "noeviction",
        }  # fmt: skip
        for words, applies in faults.items():
            if applies:
                raise SettingsError(f"{VARIABLE}: the server cannot hold nonces or limits: {words}.")

    async def close(self) -> None:
        """Close all connections."""
        await close_client(self._client)


def open_store(settings: Settings) -> Store | None:
    """Return the store of this installation; None if no setting needs it. It does not connect yet.

    Raises:
        SettingsError: there is no Redis, its URL cannot be used, or the extra `redis` is not installed.
    """
    needing = [
        variable
        for variable, where in (("LATCHKEY_NONCES", settings.nonces), ("LATCHKEY_LIMITS", settings.limits))
        if where == "redis"
    ]
    if not needing:
        return None
    opened = open_client(settings)
    if opened is None:
        raise SettingsError(f"{needing[0]}=redis needs a Redis: set {VARIABLE}.")
    client, name = opened
    return Store(
        client,
        name,
        connections=settings.pool_size,
        has_replicas="master" in client_arguments(settings.redis_url or ""),
    )
