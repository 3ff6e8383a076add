"""Calls that were made with an idempotency key, and what they were answered."""

from datetime import datetime

from sqlalchemy import LargeBinary, SmallInteger
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import Binary, UtcDateTime

# A plain BLOB ends at 64 kB there.
Bytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


class IdempotencyKey(Base):
    """One claim, written in the transaction of its effect; the primary key is the judge of copies that come at once.

    `id` is a hash of who called what with which key, `fingerprint` one of what was sent. The answer, which is
    `status`, `headers` as a JSON object and `body`, is written before COMMIT, so nobody else sees a row without one.
    """

    __tablename__ = "idempotency_keys"

    id: Mapped[bytes] = mapped_column(Binary(32), primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(Binary(32))
    status: Mapped[int | None] = mapped_column(SmallInteger)
    headers: Mapped[bytes | None] = mapped_column(Bytes)
    body: Mapped[bytes | None] = mapped_column(Bytes)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
