"""The outbox: events are written for each webhook that listens, in the transaction of the change that they report."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, cast

from sqlalchemy import (
    Connection,
    Select,
    Table,
    Text,
    insert,
    inspect,
    literal,
    or_,
    select,
    type_coerce,
    union_all,
)

from latchkey.models import Webhook, WebhookDelivery
from latchkey.models.audited import EXPOSED
from latchkey.models.journal import Change
from latchkey.service.origin import Origin
from latchkey.service.outbox.events import KEY_FIELDS, TYPES, USER_FIELDS, Event, new_event
from latchkey.service.outbox.listeners import listeners

KEPT = timedelta(days=30)
"""How long a delivery is kept, whatever its state."""

LARGEST_STATEMENT = 50  # events

_WEBHOOKS = cast("Table", Webhook.__table__)
_DELIVERIES = cast("Table", WebhookDelivery.__table__)
_COLUMNS = ("webhook_id", "event_id", "type", "payload", "status", "attempts", "created_at", "expires_at")
_FIELDS = {"key": KEY_FIELDS, "user": USER_FIELDS}
_NAMES = {"key": "access_key", "user": "id"}


def insert_deliveries(connection: Connection, changes: Sequence[Change], origin: Origin) -> None:  # noqa: ARG001 - a recorder
    """Insert the events of changes of keys and users for the webhooks that listen."""
    if any(change.noun == "webhook" for change in changes):
        listeners.forget()
    write_events(
        connection,
        (
            new_event(kind, data_of(change))
            for change in changes
            for kind in types_of(change)
            if kind in TYPES and listeners.may_listen(kind)
        ),
    )


def types_of(change: Change) -> tuple[str, ...]:
    """Return the types of the events of a change; a key that is revoked because it was exposed is also a revoked one."""
    if change.verb == EXPOSED and (change.after or {}).get("status") == "revoked":
        return change.action, f"{change.noun}.revoked"
    return (change.action,)


def data_of(change: Change) -> dict[str, Any]:
    """Return what an event contains of a change; of a changed row also the names of the fields."""
    name = _NAMES[change.noun]
    known: dict[str, Any] = {name: change.id if change.noun == "key" else int(change.id)}
    if change.instance is not None:
        loaded = inspect(change.instance).dict
        known |= {field: loaded.get(field) for field in _FIELDS[change.noun]}
    if change.verb == EXPOSED:
        known[EXPOSED] = (change.after or {})[EXPOSED]
    if change.verb == "changed":
        known["changed"] = sorted(change.after or ())
    return known


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
