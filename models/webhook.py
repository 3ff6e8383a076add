"""Webhooks: the addresses that are told of events, and the outbox of their deliveries."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Index, LargeBinary, SmallInteger, String
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.audited import CHANGED, ROTATED, Audited
from latchkey.models.base import Base
from latchkey.models.scope import DESCRIPTION_LENGTH
from latchkey.models.types import BigId, Binary, BinaryText, UtcDateTime, Words, utc_now

URL_BYTES = 2048
EVENT_ID_BYTES = 64
EVENT_TYPE_BYTES = 40
ERROR_LENGTH = 200

# On these servers a plain BLOB holds at most 64 kB.
Bytes = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


class Webhook(Audited, Base):
    """An address that is told of events, with the secret that signs them, sealed with the key ring.

    Without `events` it gets all types. `old_sealed` is the secret that the last rotation replaced; it signs too, until
    `old_secret_expires_at`. `failures`, `failing_since` and `retry_at` describe the attempts since the last success.
    """

    __tablename__ = "webhooks"
    refresh_on_commit = True
    audit_noun = "webhook"
    unaudited = frozenset(
        {
            *("id", "sealed", "old_sealed", "old_secret_expires_at", "created_at", "updated_at"),
            *("failures", "failing_since", "retry_at"),
        }
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    url: Mapped[str] = mapped_column(BinaryText(URL_BYTES))
    description: Mapped[str] = mapped_column(String(DESCRIPTION_LENGTH), default="")
    events: Mapped[tuple[str, ...]] = mapped_column(Words, default=())
    enabled: Mapped[bool] = mapped_column(default=True)
    secret_version: Mapped[int] = mapped_column(default=1)
    sealed: Mapped[bytes] = mapped_column(Binary(255))
    old_sealed: Mapped[bytes | None] = mapped_column(Binary(255))
    old_secret_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failures: Mapped[int] = mapped_column(default=0)
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    retry_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())

    @classmethod
    def audit_verb(cls, after: Mapping[str, Any]) -> str:
        """Return the verb of a change."""
        return ROTATED if "secret_version" in after else CHANGED


class WebhookDelivery(Base):
    """An event for one webhook, written in the transaction of the change that it reports.

    `id` is the order of delivery. `event_id` is the same in every attempt, and for every webhook. `payload` is the body
    as it is sent. The `status` is `pending`, `delivered` or `dead`; a dead one is not tried again unless it is
    redelivered. `response` is the HTTP status of the last attempt.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_webhook_id_status_id", "webhook_id", "status", "id"),
        Index("ix_webhook_deliveries_expires_at", "expires_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    webhook_id: Mapped[int] = mapped_column(BigId)
    event_id: Mapped[str] = mapped_column(BinaryText(EVENT_ID_BYTES))
    type: Mapped[str] = mapped_column(BinaryText(EVENT_TYPE_BYTES))
    payload: Mapped[bytes] = mapped_column(Bytes)
    status: Mapped[str] = mapped_column(BinaryText(16), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    response: Mapped[int | None] = mapped_column(SmallInteger)
    error: Mapped[str | None] = mapped_column(String(ERROR_LENGTH))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    tried_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EventMark(Base):
    """The time until which the events of a type that only time causes, such as `key.expired`, were written."""

    __tablename__ = "event_marks"

    type: Mapped[str] = mapped_column(BinaryText(EVENT_TYPE_BYTES), primary_key=True)
    written_until: Mapped[datetime] = mapped_column(UtcDateTime)
