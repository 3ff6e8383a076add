"""Announce revocations and other changes of keys to the caches of all workers.

Workers publish changes over Redis. Twice a second each worker also reads the number of published messages: only while
it has received all of them is its cache trusted for another moment. A worker with a dead connection therefore serves
cached keys for at most `TRUST_S` seconds, whatever the state of its connection seems to be.
"""

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import Callable

from latchkey.service.key_cache.cache import KeyCache
from latchkey.service.key_cache.channel import Channel, Listener
from latchkey.service.redis.client import TIMEOUT_S, UnreachableError

log = logging.getLogger("latchkey.authentication")

HEARTBEAT_S = 0.5
TRUST_S = HEARTBEAT_S + TIMEOUT_S  # from one heartbeat to the deadline of the next
UNDER_WAY_S = 0.1  # how long a counted message may take to arrive
PAUSES_S = (0.1, 2.0)  # between attempts to reach Redis, doubled from the first to the last
EVERYTHING = "*"
ROW = re.compile(r"([a-z_]{1,64}) ([0-9]{1,19})")


class Revocations:
    """Invalidate entries in the cache of this worker and, with a channel, of all others.

    Args:
        cache: of this worker.
        channel: None without Redis; other workers then use their entries until these expire.
        clock: of the cache.
    """

    def __init__(
        self, cache: KeyCache, channel: Channel | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cache = cache
        self._channel = channel
        self._clock = clock
        self._received = 0  # the number of the last message received
        self._has_unpublished = False  # a message could not be published
        if channel is not None:
            cache.trust(-math.inf)

    async def announce(self, table: str, id: int) -> None:
        """Invalidate the entries that depend on a row, in every worker.

        It never fails: a message that cannot be published now is published by `follow` when Redis is back.
        """
        self._cache.forget((table, id))
        if self._channel is None:
            return
        published = False
        try:
            await self._channel.publish(f"{table} {id}")
            published = True
        except UnreachableError as error:
            log.warning(
                "a changed row of %s could not be announced to the other workers yet: %s", table, error
            )
        finally:  # cancelled, too
            self._has_unpublished = self._has_unpublished or not published

    async def follow(self) -> None:
        """Receive messages until cancelled; while Redis cannot be reached, the cache is off."""
        if self._channel is None:
            return
        pause_s, was_up = PAUSES_S[0], True
        while True:
            try:
                async with self._channel.listening() as listener:
                    await self._resynchronize(self._channel)
                    if not was_up:
                        log.info("Redis is back: the key cache is on again")
                    pause_s, was_up = PAUSES_S[0], True
                    while True:
                        await self._receive(listener, for_s=HEARTBEAT_S)
                        await self._compare(self._channel, listener)
            except UnreachableError as error:
                if was_up:
                    log.warning("the key cache is off until Redis is back: %s", error)
                was_up = False
            except Exception:
                log.exception("the key cache is off for a moment: following Redis failed")
            finally:
                self._cache.trust(-math.inf)
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, PAUSES_S[1])

    async def close(self) -> None:
        """Close all connections to Redis."""
        if self._channel is not None:
            await self._channel.close()

    async def _resynchronize(self, channel: Channel) -> None:
        """Clear the cache, since messages may have been missed before."""
        asked_at = self._clock()
        self._restart_at(await channel.count())
        await self._trust_from(asked_at, channel)

    async def _compare(self, channel: Channel, listener: Listener) -> None:
        """Compare the received messages with the published ones, and extend the trust in the cache."""
        asked_at = self._clock()
        published = await channel.count()
        await self._receive(listener, for_s=UNDER_WAY_S, until=published)
        if self._received != published:  # a message was missed, or Redis restarted and counts from zero
            self._restart_at(published)
        await self._trust_from(asked_at, channel)

    async def _trust_from(self, asked_at: float, channel: Channel) -> None:
        if self._has_unpublished:
            self._has_unpublished = False
            try:
                await channel.publish(EVERYTHING)
            except UnreachableError:
                self._has_unpublished = True
                raise
        self._cache.trust(asked_at + TRUST_S)

    async def _receive(self, listener: Listener, *, for_s: float, until: int | None = None) -> None:
        """Receive messages for some time, or until the message with this number."""
        ends_at = self._clock() + for_s
        while self._received != until and (left_s := ends_at - self._clock()) > 0:
            published = await listener.next(left_s)
            if published is not None:
                self._note(*published)

    def _note(self, number: int, what: str) -> None:
        row = ROW.fullmatch(what)
        if row is None or number > self._received + 1:
            self._cache.empty()
        else:
            self._cache.forget((row[1], int(row[2])))
        self._received = max(self._received, number)  # a late message was counted already

    def _restart_at(self, published: int) -> None:
        self._cache.empty()
        self._received = published
