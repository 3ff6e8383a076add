"""The events of the audit log."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import Binary, BinaryText, LongJson, UtcDateTime, Uuid

ACTOR_ID_BYTES = 64
TARGET_ID_BYTES = 100
ACTION_BYTES = 40
ADDRESS_BYTES = 64
SEAL_BYTES = 100


class AuditEvent(Base):
    """One change of one row, inserted in the transaction of the change. The id is a UUID of version 7.

    `before` and `after` are the values that changed. An actor of the kind `key` has the access key as its id, and the
    key's owner as `actor_user_id`. The sealer sets `position` and `seal` a few seconds later.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_action", "action", "id"),
        Index("ix_audit_events_actor_kind", "actor_kind", "id"),
        Index("ix_audit_events_actor_id", "actor_id", "id"),
        Index("ix_audit_events_actor_user_id", "actor_user_id", "id"),
        Index("ix_audit_events_target_id", "target_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    occurred_at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor_kind: Mapped[str] = mapped_column(BinaryText(16))
    actor_id: Mapped[str | None] = mapped_column(BinaryText(ACTOR_ID_BYTES))
    actor_user_id: Mapped[int | None] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(BinaryText(ACTION_BYTES))
    target_kind: Mapped[str] = mapped_column(BinaryText(16))
    target_id: Mapped[str] = mapped_column(BinaryText(TARGET_ID_BYTES))
    before: Mapped[dict[str, Any] | None] = mapped_column("values_before", LongJson(dict[str, Any]))
    after: Mapped[dict[str, Any] | None] = mapped_column("values_after", LongJson(dict[str, Any]))
    address: Mapped[str | None] = mapped_column(BinaryText(ADDRESS_BYTES))
    request_id: Mapped[str | None] = mapped_column(BinaryText(64))
    position: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    seal: Mapped[bytes | None] = mapped_column(Binary(SEAL_BYTES))
