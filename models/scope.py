"""Scopes that the operator registers, beside those that routes declare."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.audited import Audited
from latchkey.models.base import Base
from latchkey.models.types import BigId, BinaryText, UtcDateTime, utc_now

SCOPE_BYTES = 81  # a noun and a verb of at most 40 characters each, and the colon
NOUN_BYTES = 40
DESCRIPTION_LENGTH = 200


def joined(*lists: Iterable[str]) -> tuple[str, ...]:
    """Return the names of several lists, each once, in their order."""
    return tuple(dict.fromkeys(name for one in lists for name in one))


class Scope(Audited, Base):
    """A scope of another service, which asks Latchkey whether a key has it. `noun` is the part before `:`."""

    __tablename__ = "scopes"
    refresh_on_commit = True
    audit_noun = "scope"
    unaudited = frozenset({"id", "noun", "created_at"})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(BinaryText(SCOPE_BYTES), unique=True)
    noun: Mapped[str] = mapped_column(BinaryText(NOUN_BYTES), index=True)
    description: Mapped[str] = mapped_column(String(DESCRIPTION_LENGTH), default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())

    @property
    def audit_id(self) -> str:
        """Return the name."""
        return self.name
