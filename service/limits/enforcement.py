"""Charge a call of a limited key before its endpoint runs, or refuse it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.types import Scope

from latchkey.models.limit import Credits
from latchkey.service.clock import unix_s
from latchkey.service.database.stalls import has_stalled
from latchkey.service.exception_handlers import problem_of_exception
from latchkey.service.limits.account import Accounts
from latchkey.service.limits.call import UNKNOWN, Charge, Figures, accounts_in, limit_state
from latchkey.service.limits.charger import Charger, Receipt
from latchkey.service.limits.headers import Headers, policy_header, standing_header
from latchkey.service.limits.ledger import Ledger, Refusal
from latchkey.service.limits.split_charger import SplitCharger
from latchkey.service.methods import SAFE_METHODS
from latchkey.service.problems import Problem
from latchkey.service.redis.client import UnreachableError

log = logging.getLogger("latchkey.limits")

LOG_EVERY_S = 10.0  # at most one log line per interval during an outage, not one per call

LOOK_DEADLINE_S = 1.0  # how long a finished response may wait for its rate limit headers

OUT_OF_REACH = (DBAPIError, PoolTimeoutError, UnreachableError)

LARGEST_MEMORY = 10_000  # accounts of which is known that little is left


async def nothing_is_exempt(scope: Scope) -> bool:  # noqa: ARG001 - the shape that is asked for
    """Charge every call."""
    return False


class Limits:
    """Limits and quotas of calls on private routes.

    The authenticator stores the key that it found in `scope["state"]["found"]`, even for a call that it then refuses.

    Args:
        charger: charges calls.
        on_outage: what happens to a call while the counters cannot be reached. None refuses calls that count
            towards a quota or spend credits, and allows the others.
        exempt: returns whether a call of a limited key is free of charge; its response still has the headers.
        clock: returns seconds, for the log and for the headers when the database returned no time.
    """

    def __init__(
        self,
        charger: Charger | SplitCharger,
        on_outage: Literal["refuse", "allow"] | None = None,
        *,
        exempt: Callable[[Scope], Awaitable[bool]] = nothing_is_exempt,
        clock: Callable[[], float] = unix_s,
    ) -> None:
        self._charger = charger
        self._on_outage = on_outage
        self._exempt = exempt
        self._clock = clock
        self._low: dict[
            Accounts, None
        ] = {}  # accounts with little or nothing left, as far as this worker knows
        self._logged_at = float("-inf")
        self._unlogged = 0

    async def exhausted(self, scope: Scope, *, cost: int) -> Problem | None:
        """Return a problem when a call that uses a nonce exceeds a limit already; it charges nothing.

        The nonce is reserved before the charge, so that a replay costs nothing. Without this check a key at its limit
        would still write one nonce for each call. A read is checked only if this worker knows from an
        earlier charge that little is left, so most reads need no further round trip.
        """
        state = limit_state(scope)
        accounts = accounts_in(state)
        if not accounts or scope["user"].claim is None:
            return None
        if scope["method"] in SAFE_METHODS and accounts not in self._low:
            return None
        if await self._is_exempt(scope):
            return None
        try:
            receipt = await self._charger.preview(accounts, cost)
        except OUT_OF_REACH:
            state["figures"] = UNKNOWN  # do not read the counters again for this response
            if has_stalled():  # nothing else of this call would be answered either
                raise
            return None  # the charge decides, and logs
        self._note_low(accounts, receipt)
        if receipt.refusal is None:
            return None
        state["figures"] = receipt.figures
        return problem_of(receipt.refusal, cost)

    def _note_low(self, accounts: Accounts, receipt: Receipt) -> None:
        """Remember whether the next call may be refused."""
        if receipt.refusal is None and all(figure.remaining for figure in receipt.figures):
            self._low.pop(accounts, None)
            return
        self._low[accounts] = None
        if len(self._low) > LARGEST_MEMORY:
            del self._low[next(iter(self._low))]

    async def refusal(self, scope: Scope, *, cost: int) -> Problem | None:
        """Charge an authenticated call; return a problem, and charge nothing, when it exceeds a limit.

        A call that is exempt as a replay gets `state["charge_now"]`, which charges it if the stored response no longer
        exists when it is sent.
        """
        state = limit_state(scope)
        accounts = accounts_in(state)
        if not accounts:
            state["units"] = cost
            return None
        if await self._is_exempt(scope):
            state["charge_now"] = partial(self._charge, scope, cost)
            return None
        return await self._charge(scope, cost)

    async def outlook(self, scope: Scope, *, cost: int) -> Problem | None:
        """Return the problem that a charge would return now, and charge nothing."""
        state = limit_state(scope)
        accounts = accounts_in(state)
        if not accounts:
            return None
        try:
            receipt = await self._charger.preview(accounts, cost)
        except OUT_OF_REACH as error:
            state["figures"] = UNKNOWN
            if not self._allows(accounts, error):
                raise
            return None
        state["figures"] = receipt.figures
        return None if receipt.refusal is None else problem_of(receipt.refusal, cost)

    async def _is_exempt(self, scope: Scope) -> bool:
        state = limit_state(scope)
        if "is_exempt" not in state:
            state["is_exempt"] = await self._exempt(scope)
        return state["is_exempt"]

    async def _charge(self, scope: Scope, cost: int) -> Problem | None:
        state = limit_state(scope)
        accounts = accounts_in(state)
        try:
            receipt = await self._charger.charge(accounts, cost)
        except Problem as problem:
            return problem
        except OUT_OF_REACH as error:
            state["figures"] = UNKNOWN  # do not read the counters again for this response
            if not self._allows(accounts, error):
                raise
            state["units"] = cost
            return None
        self._note_low(accounts, receipt)
        state["figures"] = receipt.figures
        if receipt.refusal is not None:
            return problem_of(receipt.refusal, cost)
        state["units"] = cost
        state["charge"] = Charge(self._charger, accounts, cost, receipt.moments, state)
        return None

    async def headers(self, scope: Scope) -> Headers:
        """Return the rate limit headers of any response to a limited key.

        A call that was refused before the charge, or that is free, reads the counters here, after its session
        has released its connection.
        """
        state = limit_state(scope)
        accounts = accounts_in(state)
        if not accounts:
            return []
        figures = state.get("figures")
        if figures is None:
            figures = await self._look(accounts)
        if figures == UNKNOWN:
            clock = int(self._clock() * 1_000_000)
            rules = [figure for one in accounts for figure in Ledger(one, None, clock).figures()]
            return policy_header(rules)
        return policy_header(figures) + standing_header(figures)

    async def credits(self, scope: Scope) -> Credits | None:
        """Return the credits of the calling key after the charge; None when it has none.

        Raises:
            Problem: the counters could not be reached, and the call was allowed uncounted.
            DBAPIError, sqlalchemy.exc.TimeoutError, UnreachableError: the counters cannot be reached.
        """
        state = limit_state(scope)
        accounts = accounts_in(state)
        if not any(one.has_credits for one in accounts):
            return None
        figures = state.get("figures")
        if figures is None:
            figures = state["figures"] = await self._charger.look(accounts)
        if figures == UNKNOWN:
            raise Problem("unavailable")
        return credits_in(figures)

    async def close(self) -> None:
        """Wait until no charge is in progress."""
        await self._charger.close()

    async def _look(self, accounts: Accounts) -> Figures:
        try:
            async with asyncio.timeout(LOOK_DEADLINE_S):
                return await self._charger.look(accounts)
        except (*OUT_OF_REACH, TimeoutError) as error:
            self._log("a response has no rate limit headers", error)
            return UNKNOWN

    def _allows(self, accounts: Accounts, error: Exception) -> bool:
        """Return the decision about a call that could not be charged."""
        problem = problem_of_exception(error)
        if problem is None or problem.code != "unavailable":
            return False
        is_metered = any(one.quota is not None or one.has_credits for one in accounts)
        allows = (self._on_outage or ("refuse" if is_metered else "allow")) == "allow"
        self._log("a call is " + ("let in uncounted" if allows else "refused"), error)
        return allows

    def _log(self, what: str, error: Exception) -> None:
        now = self._clock()
        if now - self._logged_at < LOG_EVERY_S:
            self._unlogged += 1
            return
        # Log the driver's error: SQLAlchemy's would include the statement.
        reason = getattr(error, "orig", error) or type(error).__name__
        log.warning(
            "the limit counters cannot be reached, %s; %d more since the last line: %s",
            what,
            self._unlogged,
            reason,
        )
        self._logged_at = now
        self._unlogged = 0


def credits_in(figures: Figures) -> Credits | None:
    """Return the credits among some figures."""
    return next((one.credits for one in figures if one.credits is not None), None)


def problem_of(refusal: Refusal, cost: int) -> Problem:
    """Return the problem for a refusal."""
    rule = repr(refusal.rule)
    if refusal.kind == "credits":
        return Problem(
            "credits_used_up",
            f"The call costs {cost}, and the key has {refusal.remaining} credits left.",
            headers={} if refusal.wait_s is None else {"retry-after": str(refusal.wait_s)},
        )
    if refusal.wait_s is None:
        return Problem(
            "cost_above_limit", f"The call costs {cost}, which is more than {rule} allows: {refusal.limit}."
        )
    retry = {"retry-after": str(refusal.wait_s)}
    if refusal.kind == "quota":
        return Problem("quota_exceeded", f"{rule} of {refusal.limit} is used up.", headers=retry)
    return Problem(
        "rate_limited",
        f"{rule} of {refusal.limit} in {refusal.window_s} seconds is used up.",
        headers=retry,
    )
