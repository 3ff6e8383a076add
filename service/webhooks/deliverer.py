"""The deliverer: one process sends the events of the outbox, to each webhook in order and to all at the same time.

An event is marked as delivered after its response has arrived. A process that dies in between leaves it unmarked, and the
next one sends it again with the same id.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.authentication.keyring import KeyRingError
from latchkey.service.database.conflicts import log_failure
from latchkey.service.database.lock import alone
from latchkey.service.outbox.listeners import Listeners
from latchkey.service.webhooks.delivery_queue import Queue
from latchkey.service.webhooks.expiry import write_due
from latchkey.service.webhooks.rules import Secrets
from latchkey.service.webhooks.sender import Attempt, Sender

log = logging.getLogger("latchkey.webhooks")

LOOK_EVERY_S = 0.5
STAND_BY_S = 2.0  # between two attempts to become the process that delivers
LONGEST_WAIT_S = 5.0  # a webhook with a longer pause is left to a later look
EXPIRY_EVERY_S = 30.0


class Deliverer:
    """Sends the events of one application.

    Args:
        engine: returns the transactional engine, for the lock and the events that time causes.
        queue: the outbox.
        secrets: opens the secrets that sign.
        sender: sends the requests.
        listeners: what this process knows of the webhooks.
    """

    def __init__(
        self,
        engine: Callable[[], AsyncEngine],
        queue: Queue,
        *,
        secrets: Secrets,
        sender: Sender,
        listeners: Listeners,
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._secrets = secrets
        self._sender = sender
        self._listeners = listeners

    async def deliver_for_ever(self) -> None:
        """Deliver whenever no other process does, until cancelled."""
        while True:
            try:
                if not self._listeners.none:
                    async with alone(self._engine(), "webhooks") as require_alone:
                        if require_alone is not None:
                            await self.deliver(require_alone)
            except Exception as error:  # noqa: BLE001 - it is logged, and tried again
                log_failure(log, "events cannot be delivered; trying again", error)
            await asyncio.sleep(STAND_BY_S * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def deliver(self, require_alone: Callable[[], Awaitable[None]]) -> None:
        """Deliver until there are no webhooks any more, or another process may deliver.

        Args:
            require_alone: raises an error when the lock was lost.
        """
        working: dict[int, asyncio.Task[None]] = {}
        expiry_at = 0.0
        try:
            while not self._listeners.none:
                await require_alone()
                if time.monotonic() >= expiry_at:
                    await write_due(self._engine(), self._listeners)
                    expiry_at = time.monotonic() + EXPIRY_EVERY_S
                for webhook_id in await self._queue.due():
                    if webhook_id not in working:
                        task = asyncio.create_task(self._serve(webhook_id), name=f"webhook {webhook_id}")
                        working[webhook_id] = task
                        task.add_done_callback(partial(_forget, working, webhook_id))
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            running = list(working.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _serve(self, webhook_id: int) -> None:
        """Deliver to one webhook until nothing is pending, or it has failed and must wait."""
        try:
            while (row := await self._queue.next(webhook_id)) is not None:
                attempt = await self._attempt(row)
                if attempt.is_delivered:
                    await self._queue.note_success(row, attempt)
                    continue
                log.info("event %s was not delivered to webhook %d: %s", row.event_id, row.id, attempt.error)
                pause_s = await self._queue.note_failure(row, attempt)
                if pause_s > LONGEST_WAIT_S:
                    return
                await asyncio.sleep(pause_s)
        except Exception as error:  # noqa: BLE001 - it is logged, and tried again at the next look
            log_failure(log, f"events cannot be delivered to webhook {webhook_id}; trying again", error)

    async def _attempt(self, row: Row[*tuple[Any, ...]]) -> Attempt:
        payload = bytes(row.payload)
        try:
            headers = self._secrets.headers(row, row.event_id, payload)
        except KeyRingError as error:
            return Attempt(None, f"the secret cannot be decrypted: {error}", 0)
        return await self._sender.post(row.url, payload, headers)


def _forget(working: dict[int, "asyncio.Task[None]"], webhook_id: int, _: "asyncio.Task[None]") -> None:
    working.pop(webhook_id, None)
