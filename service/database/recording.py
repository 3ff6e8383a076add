"""What is written about changes in their own transaction: the events of the audit log.

Each session calls `record_changes` before COMMIT with the changes of its audited rows. Code that changes rows without a session
calls it itself.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert

from latchkey.models import AuditEvent
from latchkey.models.audit_event import ACTOR_ID_BYTES, ADDRESS_BYTES
from latchkey.models.journal import Change
from latchkey.models.types import cut
from latchkey.models.uuid7 import uuid7
from latchkey.service import clock
from latchkey.service.origin import Origin, current_origin
from latchkey.service.outbox.writing import insert_deliveries

Recorder = Callable[[Connection, Sequence[Change], Origin], None]
"""Writes rows about changes on the connection of their transaction."""


def record_changes(connection: Connection, changes: Sequence[Change]) -> None:
    """Write what every recorder stores about changes, in their transaction."""
    if not changes:
        return
    origin = current_origin()
    for recorder in RECORDERS:
        recorder(connection, changes, origin)


def insert_events(connection: Connection, changes: Sequence[Change], origin: Origin) -> None:
    """Insert an event for each change, all by one INSERT."""
    moment = clock.now()
    rows = [
        {
            "id": uuid7(moment),
            "occurred_at": moment,
            "actor_kind": origin.actor_kind,
            "actor_id": None if origin.actor_id is None else cut(origin.actor_id, ACTOR_ID_BYTES),
            "actor_user_id": origin.actor_user_id,
            "action": change.action,
            "target_kind": change.noun,
            "target_id": change.id,
            "values_before": change.before,
            "values_after": change.after,
            "address": None if origin.address is None else cut(origin.address, ADDRESS_BYTES),
            "request_id": origin.request_id,
        }
        for change in changes
    ]
    connection.execute(insert(AuditEvent), rows)


RECORDERS: tuple[Recorder, ...] = (insert_events, insert_deliveries)
