"""Running something to its end, whoever is cancelled meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a task of its own and wait until it is done, even if the caller is cancelled meanwhile.

    A COMMIT or a close that is abandoned half-way leaves a connection in an unknown state.
    A cancellation that arrives while waiting, once or many times, is raised after `work` has ended,
    with what `work` itself raised as its cause.
    `work` runs in another task: what it needs of the caller is handed in, never looked up by task.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()
