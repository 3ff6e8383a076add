"""Work that must end runs to its end, whatever happens to the task that waits for it."""

import asyncio
from typing import Any

import pytest

from latchkey.middleware.completion import complete, help_with, is_helper


async def nothing() -> None: ...


async def test_a_helper_is_known_as_long_as_it_runs() -> None:
    helper = help_with(nothing())
    assert is_helper(helper)
    await helper
    await asyncio.sleep(0)

    assert not is_helper(helper)


async def test_it_returns_and_raises_what_the_work_does() -> None:
    async def work(value: int) -> float:
        await asyncio.sleep(0)
        return 1 / value

    assert await complete(work(2)) == 0.5
    with pytest.raises(ZeroDivisionError):
        await complete(work(0))


@pytest.mark.parametrize("failure", [None, LookupError("it failed")])
@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_cancellation_waits_for_the_work(failure: Exception | None, cancellations: int) -> None:
    may_end = asyncio.Event()
    ended: list[bool] = []

    async def work() -> None:
        await may_end.wait()
        ended.append(True)
        if failure is not None:
            raise failure

    waiting = asyncio.create_task(complete(work()))
    for _ in range(cancellations):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting

    assert ended == [True]
    assert caught.value.__cause__ is failure


async def test_work_that_is_cancelled_itself_is_a_cancellation() -> None:
    async def work() -> Any:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await complete(work())
