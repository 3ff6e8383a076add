"""The state of a call that its count needs: what other parts of the service store in `scope["state"]`."""

from typing import cast

from starlette.types import Scope

from latchkey.middleware.request_state import RequestState, request_state


class UsageState(RequestState, total=False):
    """What a call is counted by, beside its route and its status."""

    key_id: int
    """The key that the call names, even if the call does not prove that its sender holds it; absent for an unknown key."""
    counted_as: str
    """The rule of the gate, in place of the route."""
    units: int
    """The units that the call was charged."""


def usage_state(scope: Scope) -> UsageState:
    """Return the state of a call."""
    return cast(UsageState, request_state(scope))
