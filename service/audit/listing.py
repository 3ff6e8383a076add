"""The events of the audit log: filtered, and in the form of responses."""

from datetime import datetime

from latchkey.models import ApiKey, AuditEvent, GateRuleSet, Role, Scope, User, Webhook
from latchkey.models.query import Query
from latchkey.models.uuid7 import first_uuid7
from latchkey.service.audit import shapes
from latchkey.service.origin import KINDS
from latchkey.service.shapes import LARGEST_ID

TARGETS = frozenset(model.audit_noun for model in (ApiKey, GateRuleSet, Role, Scope, User, Webhook))


def by_actor(events: Query[AuditEvent], actor: str) -> Query[AuditEvent]:
    """Keep the events of an actor: a kind, an id, or `user:1` for the keys of a user."""
    if actor in KINDS:
        return events.filter(actor_kind=actor)
    kind, _, user_id = actor.partition(":")
    if kind == User.audit_noun and user_id.isascii() and user_id.isdigit():
        return events.filter(actor_user_id=min(int(user_id), LARGEST_ID))
    return events.filter(actor_id=actor)


def by_target(events: Query[AuditEvent], target: str) -> Query[AuditEvent]:
    """Keep the events about a row, which is named by its id, or by its kind and id."""
    kind, colon, row_id = target.partition(":")
    if colon and kind in TARGETS:
        return events.filter(target_kind=kind, target_id=row_id)
    return events.filter(target_id=target)


def since(events: Query[AuditEvent], moment: datetime) -> Query[AuditEvent]:
    """Keep the events at a time or later; the ids contain their time."""
    return events.filter(id__gte=first_uuid7(moment))


def before(events: Query[AuditEvent], moment: datetime) -> Query[AuditEvent]:
    """Keep the events before a time."""
    return events.filter(id__lt=first_uuid7(moment))


def shown(event: AuditEvent) -> shapes.AuditEvent:
    """Return an event in the form of a response."""
    return shapes.AuditEvent(
        id=event.id,
        occurred_at=event.occurred_at,
        actor=shapes.Actor(kind=event.actor_kind, id=event.actor_id, user_id=event.actor_user_id),
        action=event.action,
        target=shapes.Target(kind=event.target_kind, id=event.target_id),
        before=event.before,
        after=event.after,
        address=event.address,
        request_id=event.request_id,
        position=event.position,
    )
