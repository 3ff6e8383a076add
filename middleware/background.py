"""Background work, which continues after the request that starts it."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from latchkey.middleware.request_scope import RequestScope

log = logging.getLogger("latchkey.background")

T = TypeVar("T")

END_AGAIN_S = 1.0  # how long cancelled work may take to clean up before it is cancelled again
ENDINGS = 3  # the number of cancellations

_running: set[asyncio.Task[Any]] = set()


def detach(work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start a task in a context without the current request, so that it is not a child task of that request."""
    with RequestScope.outside():
        return asyncio.create_task(work, name=name)


def background(work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start work that continues after the request that starts it has ended.

    It starts at once, in a copy of the context without the request: it has none of the request's sessions, and does not see
    uncommitted changes of the request. It uses the database as code outside requests does: pass `auto_commit=True` to a
    verb that writes, or open a block, `async with db.scoped_session() as session`. Pass ids to it instead of instances,
    which belong to a session.

    Its exceptions are logged. At shutdown `db.close()` waits for it, at most 10 seconds, and then cancels it.

    Args:
        work: a coroutine, as for `asyncio.create_task`.
        name: of the task, for the log.

    Returns:
        the task; it may be awaited or cancelled, and need not be kept.
    """
    task = detach(work, name=name)
    _running.add(task)
    task.add_done_callback(_end)
    return task


def _end(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the background task %r failed", task.get_name(), exc_info=error)


async def finish(grace_s: float) -> None:
    """Wait for background work, and cancel the work that still runs after `grace_s` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    while (running := _of_loop(loop)) and loop.time() < deadline:
        await asyncio.wait(running, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
    if not running:
        return
    log.error("background tasks still run and are cancelled: %s", sorted(task.get_name() for task in running))
    for _ in range(ENDINGS):
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=END_AGAIN_S)
        if not (running := _of_loop(loop)):
            return
    log.error("background tasks ignore their cancellation: %s", sorted(task.get_name() for task in running))


def _of_loop(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
    """Return the background tasks of this loop, except the current task."""
    return {task for task in _running if task.get_loop() is loop} - {asyncio.current_task(loop)}
