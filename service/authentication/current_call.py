"""The current call, for code that does not receive its request as an argument."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import Scope

from latchkey.service.authentication.principal import Principal

_call: ContextVar[Scope | None] = ContextVar("latchkey_call", default=None)


@contextmanager
def as_current_call(scope: Scope) -> Iterator[None]:
    """Make this the current call until the end of the block, in child tasks too."""
    token = _call.set(scope)
    try:
        yield
    finally:
        _call.reset(token)


def current_call() -> Scope | None:
    """Return the ASGI scope of the current call; None outside of an endpoint."""
    return _call.get()


def caller_of(scope: Scope) -> Principal | None:
    """Return the caller of a call; None when the call is not authenticated."""
    user = scope.get("user")
    return user if isinstance(user, Principal) else None
