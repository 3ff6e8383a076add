"""The end of a process: each step has a time limit, and no step keeps another from running."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Any

log = logging.getLogger("latchkey.shutdown")

SHUTDOWN_S = 15.0  # for the application, from the last request to its end
CLOSING_S = 3.0  # of it, for the connections of the database
LAST_STEP_S = 0.5  # that each step has even when the others have used up the time
CANCEL_S = 0.1  # that a step may take to end once it is cancelled

Step = tuple[str, Callable[[], Awaitable[Any]]]


async def run_steps(steps: Sequence[Step], *, within_s: float) -> None:
    """Run steps one after the other; log those that fail or do not end in time, and go on.

    Args:
        steps: each with the name that the log gives it.
        within_s: for all of them together. A step that begins later still has `LAST_STEP_S`.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_s
    for name, step in steps:
        task = asyncio.ensure_future(step())
        await asyncio.wait({task}, timeout=max(deadline - clock(), LAST_STEP_S))
        if not task.done():
            log.error("%s did not end in time and was given up", name)
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S)
        elif not task.cancelled() and (error := task.exception()) is not None:
            # Only the driver's message: an error of SQLAlchemy has more lines.
            log.error("%s failed: %s", name, getattr(error, "orig", None) or error)


def end_on_second_signal() -> None:
    """Make the second signal of the same kind, SIGTERM or SIGINT, end the process at once.

    uvicorn handles the first one. It ignores a second SIGTERM, and during the shutdown of the application a second
    SIGINT as well. A worker may get one of each, from the terminal and from the process that supervises it. In a thread
    other than the main one, which handles no signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if callable(before):
            signal.signal(number, Counting(before))


class Counting:
    """A handler that passes the first signal on and ends the process at the second."""

    def __init__(self, first: Callable[[int, FrameType | None], Any]) -> None:
        self.first = first
        self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.count += 1
        if self.count > 1:
            log.warning("ended by a second signal, without waiting for requests")
            os._exit(128 + number)
        self.first(number, frame)
