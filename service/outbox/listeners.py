"""The types of events that some webhook listens to, as this process knows them.

An event that nobody listens to is not written, and costs no round trip. A worker reads the webhooks every few seconds. What
it read is trusted for a limited time: without it, each event is written for the webhooks that the database finds.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import Webhook
from latchkey.service.outbox.events import TYPES

log = logging.getLogger("latchkey.webhooks")

READ_EVERY_S = 2.0
TRUSTED_S = 8.0
SETTLING_S = 1.0  # for the COMMIT of a webhook's change, after which a reading contains it

_WEBHOOKS = Webhook.__table__
_EVENTS = select(_WEBHOOKS.c.events).where(_WEBHOOKS.c.enabled)


class Listeners:
    """What this process knows of the webhooks that are enabled."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._types: frozenset[str] = frozenset()
        self._trusted_until = 0.0
        self._not_before = 0.0

    def may_listen(self, type: str) -> bool:
        """Return whether a webhook may listen to a type."""
        return type in self._types or self._clock() >= self._trusted_until

    @property
    def none(self) -> bool:
        """Return whether there is certainly no webhook that listens."""
        return not self._types and self._clock() < self._trusted_until

    def note(
        self,
        filters: Iterable[tuple[str, ...]],
        read_at: float | None = None,
        *,
        trusted_s: float = TRUSTED_S,
    ) -> None:
        """Remember the types of each enabled webhook, as they were read at a time of the clock; none means all types."""
        moment = self._clock() if read_at is None else read_at
        if moment >= self._not_before:
            self._types = frozenset(one for types in filters for one in (types or TYPES))
            self._trusted_until = moment + trusted_s

    def forget(self) -> None:
        """Trust nothing that was read before now: a webhook is being changed."""
        self._trusted_until = 0.0
        self._not_before = self._clock() + SETTLING_S

    def reset(self) -> None:
        """Forget everything: another database is opened."""
        self._types, self._trusted_until, self._not_before = frozenset(), 0.0, 0.0

    async def read(self, engine: AsyncEngine) -> None:
        """Read the webhooks that are enabled."""
        read_at = self._clock()
        async with engine.connect() as connection:
            self.note((await connection.execute(_EVENTS)).scalars().all(), read_at)

    async def follow(self, engine: AsyncEngine) -> None:
        """Read the webhooks every few seconds until cancelled; while that fails, events are written for all."""
        while True:
            try:
                await self.read(engine)
            except (DBAPIError, InterfaceError, PoolTimeoutError, OSError) as error:
                log.debug("the webhooks could not be read; trying again: %s", error)
            await asyncio.sleep(READ_EVERY_S)


listeners = Listeners()
"""Those of the open database of this process."""
