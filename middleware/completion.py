"""Running something to its end, whoever is cancelled meanwhile."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_helpers: set[asyncio.Task[Any]] = set()  # those that run now


def is_helper(task: asyncio.Task[Any]) -> bool:
    """Return whether `task` was started here, to end what another task has begun."""
    return task in _helpers


def help_with(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that ends what another one has begun, and that may use the session of the other."""
    task = asyncio.create_task(work)
    _helpers.add(task)
    task.add_done_callback(_helpers.discard)
    return task


def wake(ended: asyncio.Future[None], _task: asyncio.Task[Any]) -> None:
    """Wake the waiter of a task that has ended, unless the waiter was cancelled."""
    if not ended.done():
        ended.set_result(None)


async def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a task of its own and wait until it is done, even if the caller is cancelled meanwhile.

    A COMMIT or a close that is abandoned half-way leaves a connection in an unknown state.
    A cancellation that arrives while waiting, once or many times, is raised after `work` has ended,
    with what `work` itself raised as its cause.
    `work` runs in another task: what it needs of the caller is handed in, never looked up by task.
    """
    task = help_with(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        ended = task.get_loop().create_future()
        task.add_done_callback(partial(wake, ended))
        try:
            await ended
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()
