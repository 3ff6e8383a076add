"""The checks of a call whose credential is verified: its key, its owner, its network and its scope."""

from datetime import datetime
from typing import Any

from starlette.authentication import AuthenticationError
from starlette.types import Scope

from latchkey.service.authentication.lookup import Found
from latchkey.service.authentication.records import KeyRecord, UserRecord
from latchkey.service.authentication.scopes import holds
from latchkey.service.authentication.state import call_state
from latchkey.service.networks import Address, contains, read_networks
from latchkey.service.problems import Problem, scope_missing


class Refused(AuthenticationError):  # noqa: N818 - a verdict, as Unauthenticated is
    """Raised when a call is refused with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def require_active(found: Found, now: datetime) -> None:
    """Raise `Refused` for a key that is revoked or expired, or whose owner is not active."""
    if found.key.status != "active":
        raise Refused(Problem("key_revoked"))
    if found.key.expires_at is not None and found.key.expires_at <= now:
        raise Refused(Problem("key_expired"))
    if found.user.status != "active":
        raise Refused(Problem("owner_inactive"))


def require_allowed(key: KeyRecord, address: Address | None) -> None:
    """Raise `Refused` for a key that is used from outside its allowed networks, or from an unknown address."""
    if address is None or not contains(read_networks(key.allowed_networks), address):
        shown = "an unknown address" if address is None else str(address)
        raise Refused(Problem("network_not_allowed", f"The key may not be used from {shown}."))


def require_scope(required: str | None, scopes: frozenset[str]) -> None:
    """Raise a problem for a key without the scope that the route requires; None requires none."""
    if required is not None and not holds(scopes, required):
        raise scope_missing(required)


def limits_of(key: KeyRecord, user: UserRecord) -> tuple[Any, ...]:
    """Return all limits that apply to the calls of a key."""
    return key.limits, key.quota, key.has_credits, user.limits, user.quota


def has_body(scope: Scope) -> bool:
    """Return whether the body has any bytes.

    The body itself decides if it was read already; otherwise the headers do (RFC 9112, section 6).
    """
    read = call_state(scope).get("has_body")
    if read is not None:
        return read
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )
