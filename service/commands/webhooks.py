"""The commands `latchkey webhooks …`."""

import click
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import Webhook
from latchkey.service import conversion
from latchkey.service.authentication.keyring import open_keyring
from latchkey.service.commands.answers import show, show_page
from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.parameters import ID, as_json
from latchkey.service.commands.rows import opened, work
from latchkey.service.database import SQLAlchemy
from latchkey.service.problems import Problem
from latchkey.service.webhooks import rules, shapes
from latchkey.service.webhooks.addresses import read_addresses
from latchkey.service.webhooks.ping import Pinger
from latchkey.service.webhooks.sender import sender_of

COLUMNS = ("id", "url", "events", "enabled", "failures", "failing_since", "retry_at")


@click.group()
def webhooks() -> None:
    """List webhooks, try them, and deliver events again."""


@webhooks.command("list")
@as_json
@for_application
def list_(as_json: bool) -> None:
    """List the webhooks, and how often they have failed since their last success."""
    show_page(work(list_webhooks()), COLUMNS, as_json=as_json)


async def list_webhooks() -> shapes.WebhookPage:
    """Return all webhooks."""
    async with opened(application_settings()):
        rows = await Webhook.filter().order_by("id").all()
        return shapes.WebhookPage(
            data=[conversion.convert(row, shapes.Webhook) for row in rows], next_cursor=None
        )


@webhooks.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@click.option("--event", "event_id", metavar="evt_…", help="Deliver this event, even if it was delivered.")
@for_application
def redeliver(webhook_id: int, event_id: str | None) -> None:
    """Deliver the events that were given up again, before newer ones."""
    count = work(redeliver_events(webhook_id, event_id))
    click.echo(f"{count} events will be delivered again.", err=True)


async def redeliver_events(webhook_id: int, event_id: str | None) -> int:
    """Make deliveries pending again and commit; return their number."""
    async with opened(application_settings()) as session:
        try:
            webhook = await rules.lock_webhook(webhook_id)
        except Problem:
            raise missing(webhook_id) from None
        count = await rules.redeliver(webhook, event_id)
        await session.commit()
        return count


@webhooks.command()
@click.argument("webhook_id", metavar="ID", type=ID)
@as_json
@for_application
def ping(webhook_id: int, as_json: bool) -> None:
    """Send the event `webhook.ping` now, and print the result; the exit status is 1 if it was not accepted."""
    result = work(ping_webhook(webhook_id))
    show(result, as_json=as_json)
    if not result.delivered:
        raise click.exceptions.Exit(1)


async def ping_webhook(webhook_id: int) -> shapes.Pinged:
    """Send a ping."""
    settings = application_settings()
    keyring = open_keyring(settings)
    sender = sender_of(settings, read_addresses(settings))
    async with opened(settings, keyring):
        attempt = await Pinger(reader, rules.Secrets(keyring), sender).ping(webhook_id)
    if attempt is None:
        raise missing(webhook_id)
    return shapes.pinged(attempt)


def reader() -> AsyncEngine:
    """Return the AUTOCOMMIT engine of the open database."""
    return SQLAlchemy().reader


def missing(webhook_id: int) -> click.ClickException:
    """Return the error for an id that no webhook has."""
    return click.ClickException(f"there is no webhook {webhook_id}.")
