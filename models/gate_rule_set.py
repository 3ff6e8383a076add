"""The rules of the gate that were stored by calls."""

from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from latchkey.models.audited import Audited
from latchkey.models.base import Base
from latchkey.models.types import LongText, UtcDateTime, utc_now


class GateRuleSet(Audited, Base):
    """All stored rules, in their order, in the only row of the table.

    One row, because the order of the rules is a part of their meaning: a change locks it, and a reader never gets a half of a
    change. `version` increases with each change.
    """

    __tablename__ = "gate_rule_sets"
    audit_noun = "gate_rules"
    unaudited = frozenset({"id", "updated_at"})

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)
    rules: Mapped[str] = mapped_column(LongText)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())
