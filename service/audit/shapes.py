"""The types of the audit log's query and response."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from latchkey.service.shapes import END, Cursor, Id, Input, Limit, Moment, Output

Word = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^\S+" + END)]
ActorFilter = Annotated[
    Word,
    Meta(
        description="A kind of actor, `key`, `anonymous`, `command` or `system`; an access key, or the name of the user "
        "who ran a command; or `user:1` for all keys of a user."
    ),
]
ActionFilter = Annotated[Word, Meta(description="Such as `key.rotated`.")]
TargetFilter = Annotated[
    Word,
    Meta(
        description="The id of a row, such as an access key, with or without its kind: `user:1`, `key:lka_…`, "
        "`role:reader`, `scope:orders:read`."
    ),
]
From = Annotated[Moment, Meta(description="Only events at this time or later; send its `+` as `%2B`.")]
To = Annotated[Moment, Meta(description="Only events before this time; send its `+` as `%2B`.")]


class AuditQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/audit`."""

    limit: Limit = 50
    cursor: Cursor | None = None
    actor: ActorFilter | None = None
    action: ActionFilter | None = None
    target: TargetFilter | None = None
    from_: From | None = msgspec.field(default=None, name="from")
    to: To | None = None


class Actor(Output, frozen=True, kw_only=True):
    """The actor of an event; `id` is an access key, or the name of the user who ran a command."""

    kind: str
    id: str | None
    user_id: Id | None


class Target(Output, frozen=True, kw_only=True):
    """The row that an event is about."""

    kind: str
    id: str


class AuditEvent(Output, frozen=True, kw_only=True):
    """An event of the audit log; `position` is null until it is sealed."""

    id: UUID
    occurred_at: Moment
    actor: Actor
    action: str
    target: Target
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None
    request_id: str | None
    position: int | None


class AuditPage(Output, frozen=True, kw_only=True):
    """One page of the audit log."""

    data: list[AuditEvent]
    next_cursor: str | None


class Period(msgspec.Struct, frozen=True):
    """A period of time, from a start up to and without an end; None means no bound."""

    start: datetime | None = None
    end: datetime | None = None
