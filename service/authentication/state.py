"""The state of a call: what authentication stores in `scope["state"]`, beside what the middleware stores."""

from typing import cast

from starlette.types import Scope

from latchkey.middleware.request_state import request_state
from latchkey.service.authentication.lookup import Found
from latchkey.service.authentication.retirement import Retirement
from latchkey.service.database.session import RequestSession
from latchkey.service.usage.state import UsageState


class CallState(UsageState, total=False):
    """The state of a request to a route that authenticates."""

    session: RequestSession
    is_private: bool
    """Whether the response depends on the caller, so that no cache may store it."""
    proved_key: str
    """The access key whose holder made the call, even if the call is refused."""
    found: Found
    """The key of `proved_key`, unless it is revoked, expired, or has no active owner."""
    retirement: Retirement | None
    required_scope: str | None
    failure: str
    """The reason for which the credential was refused, in one word, for metrics."""


def call_state(scope: Scope) -> CallState:
    """Return the state of a call."""
    return cast(CallState, request_state(scope))
