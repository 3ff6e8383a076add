"""The gate: a call of a limited key is charged before its endpoint runs, or refused."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.types import Scope

from service.limits.account import Accounts
from service.limits.headers import Headers, policy_header, standing_header
from service.limits.ledger import Figure, Ledger, Refusal
from service.limits.till import Moments, Till
from service.problems import Problem, of_exception

log = logging.getLogger("latchkey.limits")

TELL_EVERY_S = 10.0  # an outage is one line in the log at a time, not one a call

LOOK_DEADLINE_S = 1.0  # an answer that is ready waits no longer for what only its headers tell

Figures = tuple[Figure, ...]
UNKNOWN: Figures = ()


class Charge:
    """What a call was charged; `scope["state"]["charge"]` of every call that was.

    Args:
        till: where it was charged.
        accounts: whom it was charged to.
        cost: units.
        moments: when it was counted, by account.
        state: of the request; its `figures` are what the answer's headers will say.
    """

    def __init__(
        self, till: Till, accounts: Accounts, cost: int, moments: Moments, state: MutableMapping[str, Any]
    ) -> None:
        self._till = till
        self._accounts = accounts
        self._cost = cost
        self._moments = moments
        self._state = state
        self._is_refunded = False

    async def refund(self) -> None:
        """Give it all back; a second time does nothing.

        Not while a write of the request is open: on SQLite, which has one writer at a time, the refund would
        wait for the request that waits for it.

        Raises:
            DBAPIError, sqlalchemy.exc.TimeoutError: the counters are out of reach.
        """
        if self._is_refunded:
            return
        self._is_refunded = True
        receipt = await self._till.give_back(self._accounts, self._cost, self._moments)
        self._state["figures"] = receipt.figures


async def nothing_is_exempt(scope: Scope) -> bool:  # noqa: ARG001 - the shape that is asked for
    """Charge every call."""
    return False


class Limits:
    """Limits and quotas, as the corridor asks for them.

    The authenticator leaves in `scope["state"]["accounts"]` whom a call is charged to.

    Args:
        till: charges calls.
        on_outage: what becomes of a call when the counters are out of reach. None refuses it if it counts
            towards a quota, and allows it otherwise.
        exempt: tells of a call of a limited key whether it is charged nothing; its answer has the headers.
        clock: seconds, for the log and for an answer's headers when the database tells no time.
    """

    def __init__(
        self,
        till: Till,
        on_outage: Literal["refuse", "allow"] | None = None,
        *,
        exempt: Callable[[Scope], Awaitable[bool]] = nothing_is_exempt,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._till = till
        self._on_outage = on_outage
        self._exempt = exempt
        self._clock = clock
        self._told_at = float("-inf")
        self._untold = 0

    async def refusal(self, scope: Scope, *, cost: int) -> Problem | None:
        """Charge an authenticated call; a problem when it does not fit, and then nothing is charged."""
        state = scope["state"]
        accounts: Accounts = state["accounts"]
        if not accounts or await self._exempt(scope):
            return None
        try:
            receipt = await self._till.charge(accounts, cost)
        except Problem as problem:
            return problem
        except (DBAPIError, PoolTimeoutError) as error:
            state["figures"] = UNKNOWN  # the answer does not wait for the database once more
            if not self._allows(accounts, error):
                raise
            return None
        state["figures"] = receipt.figures
        if receipt.refusal is not None:
            return problem_of(receipt.refusal, cost)
        state["charge"] = Charge(self._till, accounts, cost, receipt.moments, state)
        return None

    async def headers(self, scope: Scope) -> Headers:
        """Tell how the rules stand in the answer to a limited key, whoever answers it.

        A call that was refused before it was charged, or is charged nothing, reads the counters here, when its
        session has been given back.
        """
        state = scope.get("state", {})
        accounts: Accounts = state.get("accounts", ())
        if not accounts:
            return []
        figures: Figures | None = state.get("figures")
        if figures is None:
            figures = await self._look(accounts)
        if figures == UNKNOWN:
            clock = int(self._clock() * 1_000_000)
            rules = [figure for one in accounts for figure in Ledger(one, None, clock).figures()]
            return policy_header(rules)
        return policy_header(figures) + standing_header(figures)

    async def close(self) -> None:
        """Wait until nothing is being charged."""
        await self._till.close()

    async def _look(self, accounts: Accounts) -> Figures:
        try:
            async with asyncio.timeout(LOOK_DEADLINE_S):
                return await self._till.look(accounts)
        except (DBAPIError, PoolTimeoutError, TimeoutError) as error:
            self._tell("an answer does not say how its limits stand", error)
            return UNKNOWN

    def _allows(self, accounts: Accounts, error: DBAPIError | PoolTimeoutError) -> bool:
        """Decide about a call that could not be charged."""
        problem = of_exception(error)
        if problem is None or problem.code != "unavailable":
            return False
        has_quota = any(one.quota is not None for one in accounts)
        allows = (self._on_outage or ("refuse" if has_quota else "allow")) == "allow"
        self._tell("a call is " + ("let in uncounted" if allows else "refused"), error)
        return allows

    def _tell(self, what: str, error: Exception) -> None:
        now = self._clock()
        if now - self._told_at < TELL_EVERY_S:
            self._untold += 1
            return
        # The driver's own words: an error of SQLAlchemy's would show the statement.
        reason = getattr(error, "orig", error) or type(error).__name__
        log.warning(
            "limits are out of reach, %s; %d more since the last line: %s", what, self._untold, reason
        )
        self._told_at = now
        self._untold = 0


def problem_of(refusal: Refusal, cost: int) -> Problem:
    """Turn a refusal into its answer."""
    rule = repr(refusal.rule)
    if refusal.wait_s is None:
        return Problem(
            "cost_above_limit", f"The call costs {cost}, and {rule} never allows more than {refusal.limit}."
        )
    retry = {"retry-after": str(refusal.wait_s)}
    if refusal.is_quota:
        return Problem("quota_exceeded", f"Of {rule}, {refusal.limit}, too little is left.", headers=retry)
    return Problem(
        "rate_limited",
        f"Of {rule}, {refusal.limit} in {refusal.window_s} seconds, too little is left.",
        headers=retry,
    )
