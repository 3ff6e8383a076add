"""Nonces of accepted signed calls, so that no call is accepted twice."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import Binary, BinaryText, UtcDateTime


class Nonce(Base):
    """One nonce of one key; the primary key decides between two calls that arrive at the same time."""

    __tablename__ = "nonces"

    access_key: Mapped[str] = mapped_column(BinaryText(64), primary_key=True)
    nonce: Mapped[bytes] = mapped_column(Binary(65), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
