"""Replay protection: a signed call reserves its nonce after its signature was verified, so it is accepted only once."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Table, insert, inspect
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from starlette.types import Scope

from latchkey.middleware.background import detach
from latchkey.middleware.request_scope import RequestScope
from latchkey.models import Nonce
from latchkey.service.database.conflicts import is_conflict
from latchkey.service.database.prepared import Prepared
from latchkey.service.database.stalls import Wait, waiting_once
from latchkey.service.problems import Problem

SKEW_S = 10  # the maximum difference between the clocks of several workers

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


async def is_used(session: AsyncSession, claim: NonceClaim) -> bool:
    """Return whether a nonce was used, without using it."""
    at = (claim.access_key, claim.nonce)
    return await session.get(Nonce, at) is not None


class PendingReservation(msgspec.Struct, frozen=True, eq=False):
    """A nonce that waits for its reservation; its caller awaits `first`, which is whether the nonce was unused."""

    claim: NonceClaim
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


class Replays:
    """The nonces that were used.

    While some nonces are being reserved, later ones wait, and all that wait are then reserved with one INSERT. A busy
    worker therefore makes one round trip and one COMMIT for many calls, and in a quiet worker no call waits for others.

    Args:
        primary: returns the AUTOCOMMIT engine on the primary; a replica may be behind.
        window_s: the clock window, in seconds.
        clock: returns unix seconds, of the clock that signatures are compared with.
    """

    def __init__(
        self,
        primary: Callable[[], AsyncEngine],
        window_s: int,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.primary = primary
        self.window_s = window_s
        self.clock = clock
        self._waiting: list[PendingReservation] = []
        self._work: asyncio.Task[None] | None = None

    async def refusal(self, scope: Scope) -> Problem | None:
        """Reserve the nonce of an authenticated call; return a problem when it was used before.

        If the database cannot be reached, the error propagates and the call is answered with a 503.
        """
        claim: NonceClaim | None = scope["user"].claim
        if claim is None or await self.reserve(claim):
            return None
        return Problem("replayed")

    async def reserve(self, claim: NonceClaim) -> bool:
        """Reserve a nonce and commit at once; return False when it was used before, or when its time has passed.

        The reservation stays when the endpoint fails: a refused call is not sent again, it is signed again. It is kept
        until every clock refuses the signature, counted from the signature's own `created`. Counted from now, the
        signature of a call dated in the future could outlive the reservation.
        """
        pending = PendingReservation(
            claim, asyncio.get_running_loop().create_future(), RequestScope.current()
        )
        self._waiting.append(pending)
        if self._work is None:
            # A separate task, because the call that started it may be cancelled while others wait for the same INSERT.
            self._work = detach(self._reserve_waiting(), name="nonces")
        first = await pending.first
        # If the INSERT took this long, an earlier row of the nonce may have been purged before it.
        return first and not self._has_ended(claim)

    async def close(self) -> None:
        """Wait until no nonce is being reserved."""
        if self._work is not None:
            await asyncio.wait([self._work])

    async def _reserve_waiting(self) -> None:
        waiting: list[PendingReservation] = []
        try:
            while waiting := [one for one in self._waiting if not one.first.done()]:
                self._waiting = []
                waiting = [one for one in waiting if not self._refuse_ended(one)]
                with waiting_once() as wait:
                    try:
                        await self._reserve_together(waiting, wait)
                    except Exception as error:  # noqa: BLE001 - every error belongs to the waiting calls
                        for pending in waiting:
                            pending.fail(error, wait)
        finally:
            self._work = None
            for pending in (*waiting, *self._waiting):
                pending.first.cancel()  # only when the loop ends: otherwise nobody waits any more
            self._waiting = []

    def _refuse_ended(self, pending: PendingReservation) -> bool:
        """Refuse a nonce whose time has passed: its row may have been purged, so it could be reserved twice."""
        if not self._has_ended(pending.claim):
            return False
        pending.resolve(False)
        return True

    def _has_ended(self, claim: NonceClaim) -> bool:
        return self.clock() >= self._ends_at(claim)

    def _ends_at(self, claim: NonceClaim) -> int:
        """Return the unix second from which every worker refuses the signature."""
        return claim.created + self.window_s + SKEW_S

    async def _reserve_together(self, waiting: Sequence[PendingReservation], wait: Wait) -> None:
        engine = self.primary()
        if len(waiting) > 1 and engine.dialect.name != "sqlite":
            try:
                await _RESERVE.insert_together(engine, [self._row(one.claim) for one in waiting])
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
            await _RESERVE.run(self.primary(), self._row(pending.claim))
        except IntegrityError:
            pending.resolve(False)
        except Exception as error:  # noqa: BLE001 - the error belongs to the waiting call
            pending.fail(error, wait)
        else:
            pending.resolve(True)

    def _row(self, claim: NonceClaim) -> dict[str, Any]:
        expires_at = datetime.fromtimestamp(self._ends_at(claim), UTC)
        return {"access_key": claim.access_key, "nonce": claim.nonce, "expires_at": expires_at}
