"""Run work to its end, even if the caller is cancelled meanwhile."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_helpers: set[asyncio.Task[Any]] = set()  # the tasks that are running


def is_helper(task: asyncio.Task[Any]) -> bool:
    """Return whether `task` was started here, to finish the work of another task."""
    return task in _helpers


def help_with(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that finishes the work of another task, and may use the other task's session."""
    task = asyncio.create_task(work)
    _helpers.add(task)
    task.add_done_callback(_helpers.discard)
    return task


def wake(ended: asyncio.Future[None], _task: asyncio.Task[Any]) -> None:
    """Wake the waiter of a task that has ended, unless the waiter was cancelled."""
    if not ended.done():
        ended.set_result(None)


async def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a separate task and wait until it is done, even if the caller is cancelled meanwhile.

    An abandoned COMMIT or close would leave a connection in an unknown state.
    A cancellation that arrives while waiting, once or many times, is raised after `work` has ended, with the
    exception of `work` as its cause.
    `work` runs in another task: pass to it what it needs of the caller, because a lookup by task would fail.
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
