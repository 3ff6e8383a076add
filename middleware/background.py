"""Work that does not end with the request that starts it."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from latchkey.middleware.request_scope import RequestScope

log = logging.getLogger("latchkey.background")

T = TypeVar("T")

END_AGAIN_S = 1.0  # how long work that was cancelled may tidy up before it is cancelled once more
ENDINGS = 3  # how often it is cancelled

_running: set[asyncio.Task[Any]] = set()


def detach(work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start a task in a context without the request that happens to start it, whose child it would be else."""
    with RequestScope.outside():
        return asyncio.create_task(work, name=name)


def background(work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start work that goes on when the request that starts it has ended.

    It starts at once, in a context of its own, a copy without the request: it has none of the request's sessions, and
    sees nothing that the request has not committed. It works as code outside requests does: a verb that writes says `auto_commit=True`, or
    stands in a block, `async with db.scoped_session() as session`. Hand ids in, not instances, which belong to a session.

    What it raises is logged. `db.close()` waits for it at shutdown, at most 10 seconds, and cancels it then.

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
    """Wait for background work, and cancel what still runs after `grace_s` seconds."""
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
    """Return what runs in this loop, but for the task that asks."""
    return {task for task in _running if task.get_loop() is loop} - {asyncio.current_task(loop)}
