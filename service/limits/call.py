"""The limits of one call: its state, and its charge."""

from collections.abc import Awaitable, Callable
from typing import cast

from starlette.types import Scope

from latchkey.service.authentication.state import CallState, call_state
from latchkey.service.limits.account import Accounts, accounts_of
from latchkey.service.limits.charger import Charger, Moments
from latchkey.service.limits.ledger import Figure
from latchkey.service.limits.split_charger import SplitCharger
from latchkey.service.problems import Problem

Figures = tuple[Figure, ...]
UNKNOWN: Figures = ()


class Charge:
    """The charge of one call, stored in `scope["state"]["charge"]`.

    Args:
        charger: charged it.
        accounts: the accounts that were charged.
        cost: units.
        moments: when each account was charged.
        state: of the request; its `figures` go into the headers of the response.
    """

    def __init__(
        self,
        charger: Charger | SplitCharger,
        accounts: Accounts,
        cost: int,
        moments: Moments,
        state: "LimitedCallState",
    ) -> None:
        self._charger = charger
        self._accounts = accounts
        self._cost = cost
        self._moments = moments
        self._state = state
        self._is_refunded = False

    async def refund(self) -> None:
        """Refund the charge; a second refund does nothing.

        Do not call it while a write of the request is open: SQLite has one writer at a time, so the refund and
        the request would wait for each other.

        Raises:
            DBAPIError, sqlalchemy.exc.TimeoutError, UnreachableError: the counters are out of reach.
        """
        if self._is_refunded:
            return
        self._is_refunded = True
        self._state["units"] = 0
        receipt = await self._charger.refund(self._accounts, self._cost, self._moments)
        self._state["figures"] = receipt.figures


class LimitedCallState(CallState, total=False):
    """The state of a call to a route with limits, `scope["state"]`."""

    accounts: Accounts
    figures: Figures
    """What is left of each rule, for the headers of the response; `UNKNOWN` if the counters cannot be reached."""
    is_exempt: bool
    """Whether the call is a replay, which is free of charge."""
    charge: Charge
    charge_now: Callable[[], Awaitable[Problem | None]]
    """Charges an exempt call if its stored response no longer exists."""


def limit_state(scope: Scope) -> LimitedCallState:
    """Return the state of a call."""
    return cast(LimitedCallState, call_state(scope))


def accounts_in(state: LimitedCallState) -> Accounts:
    """Return the accounts that a call is charged to; empty when nothing is limited, or no key was found."""
    if "accounts" not in state:
        found = state.get("found")
        state["accounts"] = () if found is None else accounts_of(found)
    return state["accounts"]
