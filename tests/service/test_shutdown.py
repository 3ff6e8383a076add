"""The steps of a shutdown are bounded, and independent of each other."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from latchkey.service.shutdown import run_steps


async def test_each_step_runs_whatever_becomes_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    ran = []

    def step(name: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            ran.append(name)
            if name == "fails":
                raise LookupError("broken")
            if name == "hangs":
                await asyncio.sleep(60)
            if name == "ignores its cancellation":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.5)

        return run

    names = ["first", "fails", "hangs", "ignores its cancellation", "last"]
    begun = time.monotonic()
    await run_steps([(name, step(name)) for name in names], within_s=0.2)

    assert ran == names
    assert time.monotonic() - begun < 2
    assert [record.getMessage() for record in caplog.records] == [
        "fails failed: broken",
        "hangs did not end in time and was given up",
        "ignores its cancellation did not end in time and was given up",
    ]
    await asyncio.sleep(0.5)  # the step that ignored its cancellation
