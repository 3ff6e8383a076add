"""The events of the audit log in the forms that other systems read: JSON lines, and syslog messages (RFC 5424)."""

import socket
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec

from latchkey.models import AuditEvent
from latchkey.service.audit.listing import before, shown, since
from latchkey.service.audit.shapes import AuditEvent as Shown
from latchkey.service.audit.shapes import Period

BATCH_EVENTS = 1000
PRIORITY = 13 * 8 + 6  # the facility "log audit" and the severity "informational", RFC 5424, section 6.2.1
LONGEST_HOST, LONGEST_MESSAGE_ID = 255, 32  # characters, section 6


async def exported(period: Period) -> AsyncIterator[Shown]:
    """Yield the events of a period, oldest first, in batches of a bounded size."""
    rows = AuditEvent.filter()
    if period.start is not None:
        rows = since(rows, period.start)
    if period.end is not None:
        rows = before(rows, period.end)
    last: UUID | None = None
    while True:
        batch = (
            await (rows if last is None else rows.filter(id__gt=last))
            .order_by("id")
            .limit(BATCH_EVENTS)
            .all()
        )
        for event in batch:
            yield shown(event)
        if len(batch) < BATCH_EVENTS:
            return
        last = batch[-1].id


def json_line(event: Shown) -> str:
    """Return an event as one line of JSON."""
    return msgspec.json.encode(event).decode()


def syslog_line(event: Shown) -> str:
    """Return an event as a syslog message, whose MSG is the event as JSON."""
    moment = event.occurred_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    host = "".join(one for one in socket.gethostname() if one.isascii() and one.isprintable() and one != " ")
    name = event.action[:LONGEST_MESSAGE_ID]
    return f"<{PRIORITY}>1 {moment} {host[:LONGEST_HOST] or '-'} latchkey - {name} - {json_line(event)}"
