"""Roles that the operator makes: names for several scopes."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.audited import Audited
from latchkey.models.scope import DESCRIPTION_LENGTH
from latchkey.models.types import BigId, BinaryText, UtcDateTime, Words, utc_now
from latchkey.models.watched import Watched

ROLE_BYTES = 40


class Role(Audited, Watched):
    """A role, whose scopes each key with this role has. The key stores the scopes of its roles as `role_scopes`."""

    __tablename__ = "roles"
    refresh_on_commit = True
    audit_noun = "role"
    unaudited = frozenset({"id", "created_at", "updated_at"})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(BinaryText(ROLE_BYTES), unique=True)
    scopes: Mapped[tuple[str, ...]] = mapped_column(Words, default=())
    description: Mapped[str] = mapped_column(String(DESCRIPTION_LENGTH), default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())

    @property
    def audit_id(self) -> str:
        """Return the name."""
        return self.name
