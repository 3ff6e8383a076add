"""Users: the owners of keys."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from latchkey.models.audited import CHANGED, DELETED, Audited
from latchkey.models.limit import Quota, RateLimit
from latchkey.models.types import BigId, BinaryText, Json, UtcDateTime, utc_now
from latchkey.models.watched import Watched

if TYPE_CHECKING:
    from latchkey.models.api_key import ApiKey

EMAIL_LENGTH = 254  # characters, RFC 5321 section 4.5.3.1.3 less the angle brackets
EMAIL_KEY_BYTES = EMAIL_LENGTH * 6  # casefolding turns one character into at most six UTF-8 bytes
NAME_LENGTH = 200
EXTERNAL_ID_BYTES = 255


class User(Audited, Watched):
    """An owner of keys. `email` is stored as given, and its casefold is unique, also among deleted users."""

    __tablename__ = "users"
    refresh_on_commit = True
    audit_noun = "user"
    unaudited = frozenset({"id", "email_key", "created_at", "updated_at"})
    personal = frozenset({"email", "name", "external_id", "meta"})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH))
    email_key: Mapped[str] = mapped_column(BinaryText(EMAIL_KEY_BYTES), unique=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    status: Mapped[str] = mapped_column(String(16), default="active")
    limits: Mapped[tuple[RateLimit, ...]] = mapped_column(
        Json(tuple[RateLimit, ...], empty=()), nullable=True, default=()
    )
    quota: Mapped[Quota | None] = mapped_column(Json(Quota))
    external_id: Mapped[str | None] = mapped_column(BinaryText(EXTERNAL_ID_BYTES), index=True, unique=True)
    meta: Mapped[dict[str, Any]] = mapped_column(Json(dict[str, Any], empty={}), nullable=True, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())

    # The foreign key decides whether an owner may be deleted; the ORM would first try to detach its keys.
    keys: Mapped[list["ApiKey"]] = relationship(back_populates="user", lazy="raise", passive_deletes="all")

    @validates("email")
    def _follow_with_key(self, _name: str, email: str) -> str:
        self.email_key = email.casefold()
        return email

    @classmethod
    def audit_verb(cls, after: Mapping[str, Any]) -> str:
        """Return the verb of a change."""
        verbs = {"active": "unblocked", "blocked": "blocked", "deleted": DELETED}
        return verbs[after["status"]] if "status" in after else CHANGED
