"""The counters of limited keys and owners."""

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import BinaryText, UtcDateTime


def subject_of(key_id: int) -> str:
    """Return the subject of a key."""
    return f"key:{key_id}"


class LimitCounter(Base):
    """The counters of one subject, `key:<id>` or `user:<id>`, for all its limits, its quota and its credits.

    One row holds them all, so that one write charges a call to all or to none. `version` changes with each write, and
    a write must name the version that was read. After `expires_at` none of the counters is needed any more;
    credits never expire.
    """

    __tablename__ = "limit_counters"

    subject: Mapped[str] = mapped_column(BinaryText(32), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
