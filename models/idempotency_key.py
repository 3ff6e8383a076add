"""Calls with an idempotency key, and their responses."""

from datetime import datetime

from sqlalchemy import LargeBinary, SmallInteger
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import Binary, UtcDateTime

# On these servers a plain BLOB holds at most 64 kB.
Bytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


class IdempotencyKey(Base):
    """One claim, written in the transaction of its effect; the primary key decides between simultaneous copies.

    `id` is a hash of caller, operation and idempotency key, `fingerprint` one of body and query. The response consists of
    `status`, `headers` as a JSON object, and `body`. It is written before COMMIT, so no other transaction sees a row
    without a response.
    """

    __tablename__ = "idempotency_keys"

    id: Mapped[bytes] = mapped_column(Binary(32), primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(Binary(32))
    status: Mapped[int | None] = mapped_column(SmallInteger)
    headers: Mapped[bytes | None] = mapped_column(Bytes)
    body: Mapped[bytes | None] = mapped_column(Bytes)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
