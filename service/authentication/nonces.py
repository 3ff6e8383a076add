"""Where used nonces are stored: in the database, or in Redis."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import Table, insert, inspect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from latchkey.middleware.request_scope import RequestScope
from latchkey.models import Nonce
from latchkey.service.database.conflicts import is_conflict
from latchkey.service.database.prepared import Prepared
from latchkey.service.database.stalls import Wait
from latchkey.service.problems import Problem
from latchkey.service.redis.store import Store

_NONCES = inspect(Nonce).local_table
assert isinstance(_NONCES, Table)  # noqa: S101 - what a declared model has
_RESERVE = Prepared(insert(_NONCES))


class NonceClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A nonce that only the first call with it may use."""

    access_key: str
    nonce: bytes
    created: int
    """Unix seconds, from the signature."""

    @classmethod
    def of_nonce(cls, access_key: str, nonce: str, created: int) -> "NonceClaim":
        """Return the claim of a nonce that the client chose."""
        return cls(access_key=access_key, nonce=b"n" + nonce.encode(), created=created)

    @classmethod
    def of_mac(cls, access_key: str, mac: bytes, created: int) -> "NonceClaim":
        """Return the claim of the decoded bytes of the MAC, for a call without a nonce."""
        return cls(access_key=access_key, nonce=b"m" + mac, created=created)


class PendingReservation(msgspec.Struct, frozen=True, eq=False):
    """A nonce that waits for its reservation; its caller awaits `first`, which is whether the nonce was unused."""

    claim: NonceClaim
    ends_at: int
    """The unix second from which every worker refuses the signature."""
    first: asyncio.Future[bool]
    request_scope: RequestScope | None

    def resolve(self, first: bool) -> None:
        """Give the result to the waiter, if there still is one."""
        if not self.first.done():
            self.first.set_result(first)

    def fail(self, error: Exception, wait: Wait) -> None:
        """Raise an error in the waiter, if there still is one."""
        wait.mark(self.request_scope)
        if not self.first.done():
            self.first.set_exception(error)


class Nonces(Protocol):
    """The used nonces, which all workers share."""

    async def reserve(self, waiting: Sequence[PendingReservation], wait: Wait) -> None:
        """Reserve nonces durably, and resolve each; an error that is raised belongs to all that are not resolved."""

    async def is_used(self, session: AsyncSession, claim: NonceClaim) -> bool:
        """Return whether a nonce was used, without using it."""
        ...


class DatabaseNonces:
    """Nonces in a table, whose primary key decides.

    Args:
        primary: returns the AUTOCOMMIT engine on the primary; a replica may be behind.
    """

    def __init__(self, primary: Callable[[], AsyncEngine]) -> None:
        self.primary = primary

    async def reserve(self, waiting: Sequence[PendingReservation], wait: Wait) -> None:
        """Reserve nonces with one INSERT; each on its own if one of them was used before."""
        engine = self.primary()
        if len(waiting) > 1 and engine.dialect.name != "sqlite":
            try:
                await _RESERVE.insert_together(engine, [row_of(one) for one in waiting])
            except DBAPIError as error:
                # One of them is reserved already, or about to be, so none was inserted: reserve each on its own.
                if not isinstance(error, IntegrityError) and not is_conflict(error):
                    raise
            else:
                for pending in waiting:
                    pending.resolve(True)
                return
        async with asyncio.TaskGroup() as group:
            for pending in waiting:
                group.create_task(self._reserve_alone(pending, wait))

    async def _reserve_alone(self, pending: PendingReservation, wait: Wait) -> None:
        try:
            await _RESERVE.run(self.primary(), row_of(pending))
        except IntegrityError:
            pending.resolve(False)
        except Exception as error:  # noqa: BLE001 - the error belongs to the waiting call
            pending.fail(error, wait)
        else:
            pending.resolve(True)

    async def is_used(self, session: AsyncSession, claim: NonceClaim) -> bool:
        """Return whether a nonce was used, without using it."""
        return await session.get(Nonce, (claim.access_key, claim.nonce)) is not None


def row_of(pending: PendingReservation) -> dict[str, Any]:
    """Return the row of a nonce."""
    claim = pending.claim
    expires_at = datetime.fromtimestamp(pending.ends_at, UTC)
    return {"access_key": claim.access_key, "nonce": claim.nonce, "expires_at": expires_at}


# The first key holds the time since when this memory is complete; the others are nonces, each with its `created` and the
# time of its expiry, in milliseconds. A signature that was possible before that time may have been used before, and so
# may one that has expired by the clock of Redis.
_RESERVE_IN_REDIS = """
local since = redis.call('GET', KEYS[1])
if not since then
  since = redis.call('TIME')[1]
  redis.call('SET', KEYS[1], since)
end
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = {tonumber(since)}
for i = 2, #KEYS do
  local created, ends_ms = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if tonumber(created) <= tonumber(since) + tonumber(ARGV[1]) then
    found[i] = 2
  elseif tonumber(ends_ms) <= now_ms then
    found[i] = 0
  elseif redis.call('SET', KEYS[i], '', 'NX', 'PXAT', ends_ms) then
    found[i] = 1
  else
    found[i] = 0
  end
end
return found
"""
_IS_USED = "return redis.call('EXISTS', KEYS[1])"
UNCERTAIN = 2

LOST_MEMORY = "Redis does not know which signatures were used before: its memory of nonces is new."


class RedisNonces:
    """Nonces in Redis, where `SET NX PXAT` decides.

    A Redis that has lost its memory, or is new, does not know which signatures were used. It therefore notes when its memory
    began, and refuses a signature that could have been accepted earlier.

    Args:
        store: of the installation.
        early_s: the longest time before `created` at which a worker accepts a signature.
    """

    def __init__(self, store: Store, *, early_s: int) -> None:
        self._store = store
        self._early_s = early_s
        self._since = store.key("nonces", "since")

    async def reserve(self, waiting: Sequence[PendingReservation], wait: Wait) -> None:
        """Reserve nonces with one script."""
        if not waiting:
            return
        keys = [self._since, *(self._key(one.claim) for one in waiting)]
        arguments: list[int] = [self._early_s]
        for pending in waiting:
            arguments += [pending.claim.created, pending.ends_at * 1000]
        since, *found = await self._store.run(_RESERVE_IN_REDIS, keys, arguments, confirmed=True)
        for pending, outcome in zip(waiting, found, strict=True):
            if outcome == UNCERTAIN:
                left_s = since + self._early_s + 1 - pending.claim.created
                headers = {"retry-after": str(left_s)}
                pending.fail(Problem("unavailable", LOST_MEMORY, headers=headers), wait)
            else:
                pending.resolve(bool(outcome))

    async def is_used(self, session: AsyncSession, claim: NonceClaim) -> bool:  # noqa: ARG002 - as in the database
        """Return whether a nonce was used, without using it."""
        return bool(await self._store.run(_IS_USED, [self._key(claim)], []))

    def _key(self, claim: NonceClaim) -> bytes:
        return self._store.key("nonces", f"{claim.access_key}:") + claim.nonce
