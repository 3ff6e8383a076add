"""The audit log: `/v1/audit`."""

from starlette.requests import Request

from latchkey.models import AuditEvent
from latchkey.service.audit import listing
from latchkey.service.audit.shapes import AuditPage, AuditQuery
from latchkey.service.endpoints.paging import page, utc_parameter
from latchkey.service.operation import Answer
from latchkey.service.parts import parts_of


async def list_audit_events(request: Request, query: AuditQuery) -> Answer:
    """List the events of the audit log, newest first.

    The filters can be combined. An event appears with its change, and has a `position` a few seconds later.
    """
    start, end = utc_parameter(query.from_, "from"), utc_parameter(query.to, "to")
    events = AuditEvent.filter()
    if query.actor is not None:
        events = listing.by_actor(events, query.actor)
    if query.action is not None:
        events = events.filter(action=query.action)
    if query.target is not None:
        events = listing.by_target(events, query.target)
    if start is not None:
        events = listing.since(events, start)
    if end is not None:
        events = listing.before(events, end)
    found = await page(
        events,
        path="/v1/audit",
        filters={
            "actor": query.actor,
            "action": query.action,
            "target": query.target,
            "from": start and start.isoformat(),
            "to": end and end.isoformat(),
        },
        limit=query.limit,
        cursor=query.cursor,
        keyring=parts_of(request.app).keyring,
        order_by="-id",
    )
    content = AuditPage(
        data=[listing.shown(one) for one in found.content.data], next_cursor=found.content.next_cursor
    )
    return Answer(content=content, headers=found.headers)
