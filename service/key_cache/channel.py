"""The Redis channel on which the processes of one installation announce changes.

Messages are numbered by a counter beside the channel: a listener that compares the two notices a missed message.
"""

import contextlib
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from latchkey.service.redis.client import TIMEOUT_S, close_client, open_client, redis_request
from latchkey.service.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

# One script, so that the messages arrive in the order of their numbers.
PUBLISH = """
local number = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', KEYS[1], string.format('%d ', number) .. ARGV[1])
return number
"""
MESSAGE = re.compile(rb"(\d{1,16}) (.+)", re.DOTALL)


class Channel:
    """One counter and one channel of the same name. Every failure is an `UnreachableError`, after at most one second.

    Args:
        client: of redis-py.
        name: the same for all processes of an installation.
    """

    def __init__(self, client: "Redis", name: str) -> None:
        self._client = client
        self.name = name

    async def publish(self, what: str) -> None:
        """Publish a message to all current listeners."""
        async with redis_request():
            await self._client.eval(PUBLISH, 1, self.name, what)

    async def count(self) -> int:
        """Return the number of messages published so far."""
        async with redis_request():
            return int(await self._client.get(self.name) or 0)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Listener"]:
        """Listen until the end of the block."""
        subscription = self._client.pubsub(ignore_subscribe_messages=True)
        try:
            async with redis_request():
                await subscription.subscribe(self.name)
            yield Listener(subscription)
        finally:
            await subscription.aclose()  # type: ignore[no-untyped-call]  # redis-py left it out

    async def close(self) -> None:
        """Close all connections."""
        await close_client(self._client)


class Listener:
    """The messages of a channel, one by one."""

    def __init__(self, subscription: "PubSub") -> None:
        self._subscription = subscription

    async def next(self, wait_s: float) -> tuple[int, str] | None:
        """Return the next message and its number; None when none arrives within the timeout, in seconds."""
        async with redis_request(wait_s + TIMEOUT_S):
            message = await self._subscription.get_message(timeout=wait_s)
        parsed = MESSAGE.fullmatch(message["data"]) if message is not None else None
        return None if parsed is None else (int(parsed[1]), parsed[2].decode(errors="replace"))


def open_channel(settings: Settings) -> Channel | None:
    """Return the channel of this installation; None without `LATCHKEY_REDIS_URL`. It does not connect yet.

    Two installations that share a channel only invalidate more than they need to.

    Raises:
        SettingsError: the URL cannot be used, or the extra `redis` is not installed.
    """
    opened = open_client(settings)
    if opened is None:
        return None
    client, name = opened
    return Channel(client, f"latchkey:{name}")
