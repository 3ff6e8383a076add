"""Where an owner appears outside of its own row and those of its keys."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import ColumnElement, Row, Table, and_, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import ApiKey, AuditEvent, User
from latchkey.service.audit.rows import STORED
from latchkey.service.owners.slices import slices

BATCH_EVENTS = 500
PERSONAL: Mapping[str, frozenset[str]] = {
    User.audit_noun: User.personal,
    ApiKey.audit_noun: ApiKey.personal,
}

_EVENTS = cast("Table", AuditEvent.__table__)


def mentions(column: ColumnElement[Any], texts: Sequence[bytes]) -> ColumnElement[bool]:
    """Return the condition that a column of bytes contains one of some texts."""
    return or_(*(func.instr(column, literal(text)) > 0 for text in texts))


def names_of(user_id: int) -> list[bytes]:
    """Return the JSON by which the body of a key names its owner."""
    return [f'"user_id":{user_id}{end}'.encode() for end in ",}"]


async def access_keys_of(connection: AsyncConnection, user_id: int) -> list[str]:
    """Return the access keys of an owner, also of keys that the housekeeping has deleted, as the audit log knows them."""
    rows = select(ApiKey.access_key).where(ApiKey.user_id == user_id).order_by(ApiKey.id)
    found = dict.fromkeys((await connection.execute(rows)).scalars())
    after = _EVENTS.c.values_after
    is_creation = _EVENTS.c.action == f"{ApiKey.audit_noun}.created"
    of_owner = or_(*(func.instr(after, text.decode()) > 0 for text in names_of(user_id)))
    async for some in slices(connection, _EVENTS.c.id, is_creation):
        created = select(_EVENTS.c.target_id, after).where(some, of_owner).order_by(_EVENTS.c.id)
        for target_id, values in await connection.execute(created):
            if values.get("user_id") == user_id:
                found.setdefault(target_id)
    return list(found)


def about(user_id: int, access_keys: Sequence[str]) -> list[ColumnElement[bool]]:
    """Return conditions for the audit events about an owner and its keys, each for one target."""
    targets = [(User.audit_noun, str(user_id)), *((ApiKey.audit_noun, one) for one in access_keys)]
    return [and_(AuditEvent.target_id == name, AuditEvent.target_kind == kind) for kind, name in targets]


def by_owner(user_id: int) -> ColumnElement[bool]:
    """Return the condition for the audit events that calls with keys of an owner have caused."""
    return AuditEvent.actor_user_id == user_id


async def events(
    connection: AsyncConnection, condition: ColumnElement[bool]
) -> AsyncIterator[Sequence[Row[*tuple[Any, ...]]]]:
    """Yield the audit events that meet a condition, newest first, in batches: their content, seal and position.

    The creation of a key names its owner. It comes last, so that an interrupted erasure finds the key again.
    """
    statement = (
        select(*STORED, AuditEvent.seal, AuditEvent.position)
        .where(condition)
        .order_by(AuditEvent.id.desc())
        .limit(BATCH_EVENTS)
    )
    batch: Sequence[Row[*tuple[Any, ...]]] = (await connection.execute(statement)).all()
    while batch:
        yield batch
        if len(batch) < BATCH_EVENTS:
            return
        batch = (await connection.execute(statement.where(AuditEvent.id < batch[-1].id))).all()


def personal_values(event: Row[*tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Return the personal values of an event, before and after, by their column."""
    found: dict[str, list[Any]] = {}
    for text in (event.before, event.after):
        values = {} if text is None else msgspec.json.decode(text, type=dict[str, Any])
        for name in PERSONAL[event.target_kind] & values.keys():
            found.setdefault(name, []).append(values[name])
    return found
