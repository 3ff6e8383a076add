"""The application with receivers on this machine, and a deliverer that looks often."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.settings import Settings
from latchkey.service.webhooks import deliverer
from tests.receiver import Receiver, receiving


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings,
        pool_size=5,
        pool_timeout_s=10.0,
        webhook_networks="127.0.0.0/8",
        webhook_http="allow",
        webhook_timeout_s=5.0,
        webhook_retry_s=0.01,
    )


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def never_lost() -> None:
    """Stand in for a lock that is not lost."""


@pytest.fixture
def delivering(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Return a block during which events are delivered."""
    monkeypatch.setattr(deliverer, "LOOK_EVERY_S", 0.01)

    @asynccontextmanager
    async def block() -> AsyncIterator[None]:
        task = asyncio.create_task(app.state.latchkey.deliverer.deliver(never_lost))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return block
