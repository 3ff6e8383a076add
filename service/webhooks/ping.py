"""A ping: one event that is sent at once, to try a webhook."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import Webhook
from latchkey.service.outbox.events import PING, new_event
from latchkey.service.webhooks.rules import Secrets
from latchkey.service.webhooks.sender import Attempt, Sender

_WEBHOOKS = Webhook.__table__


class Pinger:
    """Sends pings. No connection to the database is held meanwhile.

    Args:
        reader: returns the AUTOCOMMIT engine.
        secrets: opens the secrets that sign.
        sender: sends the requests.
    """

    def __init__(self, reader: Callable[[], AsyncEngine], secrets: Secrets, sender: Sender) -> None:
        self._reader = reader
        self._secrets = secrets
        self._sender = sender

    async def ping(self, webhook_id: int) -> Attempt | None:
        """Send a ping to a webhook; None when there is no such webhook."""
        async with self._reader().connect() as connection:
            row = (await connection.execute(select(_WEBHOOKS).where(_WEBHOOKS.c.id == webhook_id))).first()
        if row is None:
            return None
        event = new_event(PING, {"webhook_id": webhook_id})
        headers = self._secrets.headers(row, event.id, event.payload)
        return await self._sender.post(row.url, event.payload, headers)
