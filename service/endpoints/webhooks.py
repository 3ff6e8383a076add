"""Webhooks, which are told of events: `/v1/webhooks`."""

from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from latchkey.models import Webhook, WebhookDelivery
from latchkey.service import conversion
from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.endpoints.paging import page
from latchkey.service.endpoints.users import parse_id
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of
from latchkey.service.problems import or_not_found
from latchkey.service.shapes import PathId, given
from latchkey.service.webhooks import shapes
from latchkey.service.webhooks.rules import WebhookRules, lock_webhook, redeliver, remove

PATH = "/v1/webhooks"


async def create_webhook(request: Request, body: shapes.NewWebhook) -> Answer:
    """Create a webhook, to which events are sent from then on.

    The response contains the secret that signs the events, which is shown only here. Other workers need a few seconds to
    notice the first webhook for a type of event.
    """
    await hold_caller(request)
    webhook, secret = await rules_of(request).create(**msgspec.structs.asdict(body))
    await request.state.session.flush_and_refresh()
    return Answer(
        content=shapes.WebhookWithSecret(**fields_of(webhook), secret=secret),
        headers={"location": f"{PATH}/{webhook.id}"},
    )


async def list_webhooks(request: Request, query: shapes.WebhookQuery) -> Answer:
    """List the webhooks, oldest first."""
    return await page(
        Webhook.filter(),
        path=PATH,
        filters={},
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
    )


async def read_webhook(id: PathId) -> Webhook:
    """Read a webhook; its secret is never shown."""
    return or_not_found(await Webhook.get(parse_id(id)))


async def change_webhook(request: Request, id: PathId, body: shapes.WebhookChange) -> Webhook:
    """Change a webhook; absent fields stay unchanged.

    A disabled webhook gets no new events, and the waiting ones are kept. A webhook that is enabled, or gets another URL,
    is tried at once.
    """
    await hold_caller(request)
    webhook = await lock_webhook(parse_id(id))
    await rules_of(request).change(webhook, given(body))
    return webhook


async def rotate_webhook(request: Request, id: PathId, body: shapes.WebhookRotation) -> Answer:
    """Replace the secret of a webhook.

    The response contains the new secret, which is shown only here. For `grace_s` more seconds each event has a signature
    with the old secret as well.
    """
    await hold_caller(request)
    webhook = await lock_webhook(parse_id(id))
    secret = await rules_of(request).rotate(webhook, body.grace_s)
    await request.state.session.flush_and_refresh()
    return Answer(
        content=shapes.RotatedWebhook(
            **fields_of(webhook), secret=secret, old_secret_expires_at=webhook.old_secret_expires_at
        )
    )


async def delete_webhook(request: Request, id: PathId) -> None:
    """Delete a webhook and its deliveries; events that were not delivered are lost."""
    await hold_caller(request)
    await remove(await lock_webhook(parse_id(id)))


async def list_deliveries(request: Request, id: PathId, query: shapes.DeliveryQuery) -> Answer:
    """List the deliveries of a webhook in their order, for 30 days.

    With `status=dead` the list contains those that were given up.
    """
    webhook = await read_webhook(id)
    found = WebhookDelivery.filter(webhook_id=webhook.id)
    if query.status is not None:
        found = found.filter(status=query.status)
    return await page(
        found,
        path=f"{PATH}/{webhook.id}/deliveries",
        filters={"status": query.status},
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
    )


async def redeliver_events(request: Request, id: PathId, body: shapes.Redelivery) -> shapes.Redelivered:
    """Deliver events again: all that were given up, or the one that `event_id` names, even if it was delivered.

    They keep their ids, and are sent before newer events.
    """
    await hold_caller(request)
    event_id = None if body.event_id is UNSET else body.event_id
    return shapes.Redelivered(deliveries=await redeliver(await lock_webhook(parse_id(id)), event_id))


async def ping_webhook(request: Request, id: PathId) -> shapes.Pinged:
    """Send the event `webhook.ping` at once, also to a disabled webhook, and return the result.

    It is not stored and not repeated, and changes nothing.
    """
    attempt = or_not_found(await parts_of(request.app).pinger.ping(parse_id(id)))
    return shapes.pinged(attempt)


def rules_of(request: Request) -> WebhookRules:
    """Return the rules of webhooks of the application."""
    return parts_of(request.app).webhook_rules


def fields_of(webhook: Webhook) -> dict[str, Any]:
    """Return the response's fields of a webhook, by name."""
    return msgspec.structs.asdict(conversion.convert(webhook, shapes.Webhook))
