"""The head of the audit log: its last sealed event."""

from sqlalchemy import BigInteger, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.base import Base
from latchkey.models.types import Binary

THE_HEAD = 1


class AuditHead(Base):
    """The position of the last sealed event, which is their number, and the end of the chain of their seals.

    The only row has the id `THE_HEAD`. `proof` shows that the key ring's owner wrote it.
    """

    __tablename__ = "audit_heads"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger)
    chain: Mapped[bytes] = mapped_column(Binary(32))
    proof: Mapped[bytes] = mapped_column(Binary(36))
