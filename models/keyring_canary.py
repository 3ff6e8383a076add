"""Values by which the service recognizes the key ring of its database."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import Binary, UtcDateTime, utc_now


class KeyringCanary(Base):
    """A known value, sealed with one key of the key ring."""

    __tablename__ = "keyring_canaries"

    key_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sealed: Mapped[bytes] = mapped_column(Binary(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
