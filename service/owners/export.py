"""Everything that is stored about an owner, as JSON lines, read in batches of a bounded size."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Literal, cast

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import ApiKey, AuditEvent, KeySecret, UsageCount, UsageSeries, User
from latchkey.models.usage import DAY, HOUR, MINUTE
from latchkey.service import shapes
from latchkey.service.audit.listing import shown as shown_event
from latchkey.service.audit.shapes import AuditEvent as ShownEvent
from latchkey.service.conversion import convert
from latchkey.service.keys.credits import shown as shown_keys
from latchkey.service.owners.traces import about, access_keys_of, by_owner
from latchkey.service.usage.periods import NAMES, moment_of
from latchkey.service.usage.shapes import By

BATCH_ROWS = 500

_COUNTS = cast("Table", UsageCount.__table__)
_SERIES = cast("Table", UsageSeries.__table__)


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the secret of a key, without the secret."""

    access_key: str
    version: int
    created_at: datetime
    expires_at: datetime | None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of a key in one period."""

    access_key: str
    start: datetime
    period: By
    route: str
    status: int
    code: str | None
    tags: list[str]
    calls: int
    units: int


Data = shapes.User | shapes.Key | Secret | Usage | ShownEvent
Kind = Literal["user", "key", "secret", "usage", "audit_event"]
KINDS: dict[type[Any], Kind] = {
    shapes.User: "user",
    shapes.Key: "key",
    Secret: "secret",
    Usage: "usage",
    ShownEvent: "audit_event",
}


class Line(msgspec.Struct, frozen=True):
    """One line of an export."""

    type: Kind
    data: Data


async def exported(
    user: User, connection: AsyncConnection, environments: Sequence[str]
) -> AsyncIterator[Line]:
    """Yield what is stored about an owner: the user, then its keys with their usage, then the audit events.

    Args:
        user: the owner.
        connection: reads, in AUTOCOMMIT mode.
        environments: the names of the settings.
    """
    async for one in _exported(user, connection, environments):
        yield Line(KINDS[type(one)], one)


async def _exported(
    user: User, connection: AsyncConnection, environments: Sequence[str]
) -> AsyncIterator[Data]:
    yield convert(user, shapes.User)
    last = 0
    while keys := await ApiKey.filter_by(user_id=user.id, id__gt=last).order_by("id").limit(BATCH_ROWS).all():
        for key, shown in zip(keys, await shown_keys(keys, environments), strict=True):
            yield shown
            for secret in await KeySecret.filter_by(api_key_id=key.id).order_by("version").all():
                yield Secret(
                    access_key=key.access_key,
                    version=secret.version,
                    created_at=secret.created_at,
                    expires_at=secret.expires_at,
                )
            async for count in usage_of(connection, key):
                yield count
        last = keys[-1].id
    async for event in events_of(user.id, await access_keys_of(connection, user.id)):
        yield event


async def usage_of(connection: AsyncConnection, key: ApiKey) -> AsyncIterator[Usage]:
    """Yield the calls of a key by period, as they are stored: days, then hours, then minutes."""
    place = (_COUNTS.c.start, _COUNTS.c.series_id)
    for length in (DAY, HOUR, MINUTE):
        statement = (
            select(*place, *(_SERIES.c[name] for name in ("route", "status", "code", "tags")))
            .add_columns(_COUNTS.c.calls, _COUNTS.c.units)
            .join_from(_COUNTS, _SERIES, _SERIES.c.id == _COUNTS.c.series_id)
            .where(_COUNTS.c.minutes == length, _COUNTS.c.key_id == key.id)
            .order_by(*place)
            .limit(BATCH_ROWS)
        )
        following = statement
        while batch := (await connection.execute(following)).all():
            for row in batch:
                yield Usage(
                    access_key=key.access_key,
                    start=moment_of(row.start),
                    period=NAMES[length],
                    route=row.route,
                    status=row.status,
                    code=row.code or None,
                    tags=row.tags.split(),
                    calls=row.calls,
                    units=row.units,
                )
            last = batch[-1]
            is_later = tuple_(*place) > tuple_(last.start, last.series_id)
            following = statement.where(_COUNTS.c.start >= last.start, is_later)


async def events_of(user_id: int, access_keys: Sequence[str]) -> AsyncIterator[ShownEvent]:
    """Yield the audit events about an owner and its keys, and then those that its calls have caused elsewhere.

    The former are without the address of another caller, the latter without the values of other rows.
    """
    for condition in about(user_id, access_keys):
        async for event in _events(condition):
            yield event if event.actor.user_id == user_id else replace(event, address=None)
    own = {str(user_id), *access_keys}
    async for event in _events(by_owner(user_id)):
        if event.target.id not in own:
            yield replace(event, before=None, after=None)


async def _events(condition: ColumnElement[bool]) -> AsyncIterator[ShownEvent]:
    rows = AuditEvent.filter(condition).order_by("id").limit(BATCH_ROWS)
    batch = await rows.all()
    while batch:
        for event in batch:
            yield shown_event(event)
        batch = await rows.filter(id__gt=batch[-1].id).all()
