"""Only the task that owns a session may use it: any other task is refused before it changes anything (R7)."""

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from latchkey.middleware.completion import is_helper
from latchkey.middleware.session_errors import OtherTaskError

C = TypeVar("C", bound=type)

AWAITED = (
    *(
        "execute",
        "scalar",
        "scalars",
        "stream",
        "stream_scalars",
        "get",
        "get_one",
        "merge",
        "refresh",
        "delete",
    ),
    *("flush", "run_sync", "connection", "commit", "rollback", "close", "aclose", "reset", "invalidate"),
    *("flush_and_refresh", "reset_for_retry", "__aenter__"),
)
CALLED = ("add", "add_all", "begin", "begin_nested", "expire", "expire_all", "expunge", "expunge_all")


def other_than(owner: "asyncio.Task[Any]") -> "asyncio.Task[Any] | None":
    """Return the current task, or None if it is `owner` or a helper that ends its work."""
    running = asyncio.current_task()
    return None if running is None or running is owner or is_helper(running) else running


def require_own_task(owner: "asyncio.Task[Any]") -> None:
    """Raise `OtherTaskError` unless the current task is `owner`, or a helper that ends its work."""
    if (running := other_than(owner)) is not None:
        raise OtherTaskError(owner, running)


class InUse:
    """A running call on a session, before whose end the session does not end.

    The garbage collector closes an abandoned async generator in another task. A block in the generator must not close the
    session during a call: the last call then ends it, in the task that opened it.
    """

    __slots__ = ("session",)

    def __init__(self, session: Any) -> None:
        self.session = session

    async def __aenter__(self) -> None:
        """Count the call."""
        self.session.calls += 1

    async def __aexit__(self, *_error: object) -> None:
        """End the call; the last one also ends a session that was left meanwhile."""
        session = self.session
        session.calls -= 1
        if session.was_left and not session.calls:
            await session.end_left()


def of_one_task(session_class: C) -> C:
    """Make every public method of a session class that has an effect check the current task first."""
    for name in AWAITED:
        setattr(session_class, name, _awaited(getattr(session_class, name)))
    for name in CALLED:
        setattr(session_class, name, _called(getattr(session_class, name)))
    return session_class


def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    # A coroutine may be created in one task and run in another, as by `gather`: check when it runs.
    @wraps(method)
    async def asked(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.require_own_task()
        async with InUse(self):
            return await method(self, *args, **kwargs)

    return asked


def _called(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def asked(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.require_own_task()
        return method(self, *args, **kwargs)

    return asked
