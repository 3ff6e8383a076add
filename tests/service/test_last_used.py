"""The task that writes the last uses continues after any failure."""

import asyncio
import logging

import pytest
from starlette.applications import Starlette

from latchkey.service.keys import last_used
from tests.api import HeldKey, call, key_row


async def test_it_writes_every_few_seconds_and_outlives_a_failure(
    app: Starlette, operator: HeldKey, monkeypatch: pytest.MonkeyPatch, log_lines: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(last_used, "WRITE_EVERY_S", 0.01)
    gathered = app.state.latchkey.last_used
    write, failures = gathered.write, [ConnectionError()]

    async def fail_once() -> None:
        if failures:
            raise failures.pop()
        await write()

    monkeypatch.setattr(gathered, "write", fail_once)
    await call(app, "GET", "/v1/me", key=operator)

    writing = asyncio.create_task(gathered.write_for_ever())
    async with asyncio.timeout(5):
        while (await key_row(operator.access_key)).last_used_at is None:
            await asyncio.sleep(0.01)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    errors = [line.getMessage() for line in log_lines if line.levelno >= logging.ERROR]
    assert errors == ["the last uses of keys could not be written; trying again"]


def test_a_few_seconds_is_five() -> None:
    assert last_used.WRITE_EVERY_S == 5
