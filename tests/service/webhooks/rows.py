"""Rows of webhooks and their deliveries."""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from starlette.applications import Starlette

from latchkey.models import Webhook, WebhookDelivery
from latchkey.service.outbox.events import Event, new_event
from latchkey.service.outbox.writing import write_events
from latchkey.service.webhooks.signature import WebhookSecret, new_secret
from tests.conftest import table_of

NOWHERE = "https://127.0.0.1/"
"""An address that is refused at every attempt, unless a setting permits it."""


async def hold_webhook(
    app: Starlette, id: int, url: str = NOWHERE, *, events: Sequence[str] = (), **values: Any
) -> WebhookSecret:
    """Create a webhook, unless there is one with this id."""
    secret = new_secret()
    async with app.state.db.scoped_session() as session:
        if await Webhook.get(id) is None:
            sealed = app.state.latchkey.webhook_rules.secrets.seal(secret, id, 1)
            session.add(Webhook(id=id, url=url, sealed=sealed, events=tuple(events), **values))
            await session.commit()
    return secret


async def write(app: Starlette, *types: str, count: int = 1) -> list[Event]:
    """Write events for all webhooks, each in its own transaction."""
    events = [new_event(one, {"place": place}) for place in range(count) for one in types]
    for event in events:
        async with app.state.db.engine.begin() as connection:
            await connection.run_sync(write_events, [event])
    return events


async def deliveries(app: Starlette, webhook_id: int) -> list[Any]:
    """Return the rows of a webhook's deliveries, in their order."""
    table = table_of(WebhookDelivery)
    async with app.state.db.reader.connect() as connection:
        found = select(table).where(table.c.webhook_id == webhook_id).order_by(table.c.id)
        return list((await connection.execute(found)).all())


async def wait_for_status(app: Starlette, webhook_id: int, status: str, *, within_s: float = 20.0) -> None:
    """Wait until all deliveries of a webhook have a status."""
    async with asyncio.timeout(within_s):
        while {row.status for row in await deliveries(app, webhook_id)} != {status}:
            await asyncio.sleep(0.02)
