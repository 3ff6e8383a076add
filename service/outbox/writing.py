"""The outbox: events are written for each webhook that listens, in the transaction of the change that they report."""

from collections.abc import Iterable
from datetime import timedelta
from itertools import islice
from typing import Any, cast

from sqlalchemy import Connection, Select, Table, Text, insert, literal, or_, select, type_coerce, union_all

from latchkey.models import Webhook, WebhookDelivery
from latchkey.service.outbox.events import Event

KEPT = timedelta(days=30)
"""How long a delivery is kept, whatever its state."""

LARGEST_STATEMENT = 50  # events

_WEBHOOKS = cast("Table", Webhook.__table__)
_DELIVERIES = cast("Table", WebhookDelivery.__table__)
_COLUMNS = ("webhook_id", "event_id", "type", "payload", "status", "attempts", "created_at", "expires_at")


def write_events(connection: Connection, events: Iterable[Event]) -> int:
    """Insert events for each webhook that listens to their types; return the number of deliveries."""
    waiting, written = iter(events), 0
    while some := list(islice(waiting, LARGEST_STATEMENT)):
        rows = [deliveries_of(event) for event in some]
        statement = insert(_DELIVERIES).from_select(_COLUMNS, rows[0] if len(rows) == 1 else union_all(*rows))
        written += connection.execute(statement).rowcount
    return written


def deliveries_of(event: Event) -> Select[Any]:
    """Select the rows of an event: one for each enabled webhook that listens to its type."""
    events = type_coerce(_WEBHOOKS.c.events, Text)
    padded = literal(" ") + events + literal(" ")
    values = {
        "event_id": event.id,
        "type": event.type,
        "payload": event.payload,
        "status": "pending",
        "attempts": 0,
        "created_at": event.moment,
        "expires_at": event.moment + KEPT,
    }
    literals = [literal(value, _DELIVERIES.c[name].type).label(name) for name, value in values.items()]
    return select(_WEBHOOKS.c.id.label("webhook_id"), *literals).where(
        _WEBHOOKS.c.enabled, or_(events == "", padded.contains(f" {event.type} ", autoescape=True))
    )
