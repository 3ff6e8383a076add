"""What was counted of those who are limited."""

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import BinaryText, UtcDateTime


class LimitCounter(Base):
    """What one subject, `key:<id>` or `user:<id>`, has spent of all its limits and its quota.

    One row holds them all, so that a call is charged to all or to none by one write. `version` changes with
    each write, and whoever writes says which one it read. After `expires_at` nothing in it counts any more.
    """

    __tablename__ = "limit_counters"

    subject: Mapped[str] = mapped_column(BinaryText(32), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
