"""A session is used by its own task alone: any other task is refused before it touches anything (R7)."""

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from latchkey.middleware.completion import is_helper

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


class OtherTaskError(RuntimeError):
    """A session was used by a task that is not its own: the two would be on one connection at once."""

    def __init__(self, owner: "asyncio.Task[Any]", other: "asyncio.Task[Any]") -> None:
        super().__init__(
            f"the task {other.get_name()!r} uses the session of the task {owner.get_name()!r}, and a session is used "
            "by its own task alone: call the verbs of the models in the other task, or open a block there, "
            "`async with db.scoped_session() as session`. `asyncio.gather` starts a task for each coroutine, and so "
            "does `asyncio.wait_for` before Python 3.12: `async with asyncio.timeout(…)` does not."
        )


def other_than(owner: "asyncio.Task[Any]") -> "asyncio.Task[Any] | None":
    """Return the running task, unless it is `owner` or a helper that ends its work."""
    running = asyncio.current_task()
    return None if running is None or running is owner or is_helper(running) else running


def require_own_task(owner: "asyncio.Task[Any]") -> None:
    """Raise `OtherTaskError` unless `owner` runs, or a helper that ends its work."""
    if (running := other_than(owner)) is not None:
        raise OtherTaskError(owner, running)


class InUse:
    """A call on a session that is under way: the session does not end before it.

    The collector closes an async generator that was left early in a task of its own. A block in it must not close the
    session under a call: the last call ends it then, in the task that opened it.
    """

    __slots__ = ("session",)

    def __init__(self, session: Any) -> None:
        self.session = session

    async def __aenter__(self) -> None:
        """Begin."""
        self.session.calls += 1

    async def __aexit__(self, *_error: object) -> None:
        """End, and with the last call the session that was left meanwhile."""
        session = self.session
        session.calls -= 1
        if session.was_left and not session.calls:
            await session.end_left()


def of_one_task(session_class: C) -> C:
    """Have every public method of a session class that does something ask first whose task is running."""
    for name in AWAITED:
        setattr(session_class, name, _awaited(getattr(session_class, name)))
    for name in CALLED:
        setattr(session_class, name, _called(getattr(session_class, name)))
    return session_class


def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    # The coroutine may be made in one task and run in another, as `gather` does: asked when it runs.
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
