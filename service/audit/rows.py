"""The events and the head of the audit log, as they are stored."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, Text, Update, bindparam, func, insert, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import AuditEvent, AuditHead
from latchkey.models.audit_head import THE_HEAD
from latchkey.service.audit.seal import Content, Head

STORED = (
    AuditEvent.id,
    AuditEvent.occurred_at,
    AuditEvent.actor_kind,
    AuditEvent.actor_id,
    AuditEvent.actor_user_id,
    AuditEvent.action,
    AuditEvent.target_kind,
    AuditEvent.target_id,
    type_coerce(AuditEvent.before, Text).label("before"),
    type_coerce(AuditEvent.after, Text).label("after"),
    AuditEvent.address,
    AuditEvent.request_id,
)
UNSEALED = select(*STORED).where(AuditEvent.position.is_(None)).order_by(AuditEvent.id)
ANY_UNSEALED = select(AuditEvent.id).where(AuditEvent.position.is_(None)).limit(1)
HEAD = select(AuditHead.position, AuditHead.chain, AuditHead.proof).where(AuditHead.id == THE_HEAD)
SEAL: Update = (
    update(AuditEvent.__table__)  # type: ignore[arg-type]  # a Table
    .where(AuditEvent.id == bindparam("event_id"), AuditEvent.position.is_(None))
    .values(position=bindparam("new_position"), seal=bindparam("new_seal"))
)


def content_of(row: Row[*tuple[Any, ...]]) -> Content:
    """Return the content of a row of `STORED`."""
    return Content(**{name: getattr(row, name) for name in Content.__struct_fields__})


def sealed_after(position: int, rows: int) -> Select[*tuple[Any, ...]]:
    """Return the query for the sealed events after a position."""
    return (
        select(*STORED, AuditEvent.position, AuditEvent.seal)
        .where(AuditEvent.position > position)
        .order_by(AuditEvent.position)
        .limit(rows)
    )


async def read_head(connection: AsyncConnection, *, lock: bool = False) -> tuple[Head, bytes] | None:
    """Return the head with its proof; None before the first event is sealed."""
    row = (await connection.execute(HEAD.with_for_update() if lock else HEAD)).first()
    return None if row is None else (Head(row.position, bytes(row.chain)), bytes(row.proof))


async def write_head(connection: AsyncConnection, head: Head, proof: bytes, *, is_new: bool) -> None:
    """Store the head."""
    values = {"position": head.position, "chain": head.chain, "proof": proof}
    if is_new:
        await connection.execute(insert(AuditHead).values(id=THE_HEAD, **values))
    else:
        await connection.execute(update(AuditHead).where(AuditHead.id == THE_HEAD).values(**values))


async def write_seals(connection: AsyncConnection, seals: Sequence[dict[str, Any]]) -> None:
    """Store positions and seals of events."""
    await connection.execute(SEAL, seals)


def positions_after(position: int, rows: int) -> Select[*tuple[Any, ...]]:
    """Return the query for the positions of the sealed events after a position."""
    return (
        select(AuditEvent.position)
        .where(AuditEvent.position > position)
        .order_by(AuditEvent.position)
        .limit(rows)
    )


async def count_unsealed(connection: AsyncConnection) -> int:
    """Return the number of events that are not sealed."""
    counted = select(func.count()).select_from(AuditEvent).where(AuditEvent.position.is_(None))
    return (await connection.execute(counted)).scalar_one()


async def count_outside(connection: AsyncConnection, last: int, seen: int) -> int:
    """Return the number of events up to a position that are beside those which were seen in their order."""
    counted = select(func.count()).select_from(AuditEvent).where(AuditEvent.position <= last)
    return (await connection.execute(counted)).scalar_one() - seen
