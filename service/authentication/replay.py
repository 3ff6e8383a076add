"""Replay protection: a signed call reserves its nonce after its signature was verified, so it is accepted only once."""

import asyncio
from collections.abc import Callable

from starlette.types import Scope

from latchkey.middleware.background import detach
from latchkey.middleware.request_scope import RequestScope
from latchkey.service.authentication.nonces import NonceClaim, Nonces, PendingReservation
from latchkey.service.clock import unix_s
from latchkey.service.database.stalls import waiting_once
from latchkey.service.problems import Problem
from latchkey.service.redis.client import UnreachableError

SKEW_S = 10  # the maximum difference between the clocks of several workers


class Replays:
    """The nonces that were used.

    While some nonces are being reserved, later ones wait, and all that wait are then reserved together. A busy
    worker therefore makes one round trip for many calls, and in a quiet worker no call waits for others.

    Args:
        nonces: the store of the used ones.
        window_s: the clock window, in seconds.
        clock: returns unix seconds, of the clock that signatures are compared with.
    """

    def __init__(
        self,
        nonces: Nonces,
        window_s: int,
        *,
        clock: Callable[[], float] = unix_s,
    ) -> None:
        self.nonces = nonces
        self.window_s = window_s
        self.clock = clock
        self._waiting: list[PendingReservation] = []
        self._work: asyncio.Task[None] | None = None

    async def refusal(self, scope: Scope) -> Problem | None:
        """Reserve the nonce of an authenticated call; return a problem when it was used before.

        If the store of the nonces cannot be reached, the error propagates and the call is answered with a 503.
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
            claim, self._ends_at(claim), asyncio.get_running_loop().create_future(), RequestScope.current()
        )
        self._waiting.append(pending)
        if self._work is None:
            # A separate task, because the call that started it may be cancelled while others wait for the same round trip.
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
                        await self.nonces.reserve(waiting, wait)
                    except Exception as error:  # noqa: BLE001 - every error belongs to the waiting calls
                        if isinstance(error, UnreachableError):
                            # Those that arrived meanwhile have waited for the same server, and do not wait again.
                            waiting, self._waiting = [*waiting, *self._waiting], []
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
