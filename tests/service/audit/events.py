"""The events of the audit log, in their order."""

from latchkey.models import AuditEvent


async def events() -> list[AuditEvent]:
    """Return all events, oldest first."""
    return await AuditEvent.filter().order_by("id").all()


async def last_event() -> AuditEvent:
    """Return the newest event."""
    return (await events())[-1]
