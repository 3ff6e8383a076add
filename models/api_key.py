"""API keys, and the versions of their secrets."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from latchkey.models.audited import CHANGED, EXPOSED, ROTATED, Audited
from latchkey.models.base import Base
from latchkey.models.limit import Quota, RateLimit
from latchkey.models.scope import joined
from latchkey.models.types import BigId, Binary, BinaryText, Json, UtcDateTime, Words, utc_now
from latchkey.models.user import EXTERNAL_ID_BYTES, NAME_LENGTH
from latchkey.models.watched import Watched

if TYPE_CHECKING:
    from latchkey.models.user import User

ENVIRONMENT_BYTES = 16
ENVIRONMENT_PATTERN = r"[a-z][a-z0-9]{0,15}"


class ApiKey(Audited, Watched):
    """An API key of `user`.

    `access_key` is its public identifier. With the `mode` `bearer`, the secret is sent with each call; with `signed`, it is never sent.
    An `environment` of None is the first one of the settings, as for keys that are older than environments.
    `role_scopes` are those of its `roles`, which follow each change of a role. With `has_credits`, its calls spend the credits that its `LimitCounter` holds.
    `secret_version` is the version of the newest `KeySecret`. The fields about the old secret describe the version before
    it, and are reset by each rotation.
    """

    __tablename__ = "api_keys"
    refresh_on_commit = True
    audit_noun = "key"
    unaudited = frozenset(
        {
            *("id", "access_key", "role_scopes", "created_at", "updated_at", "last_used_at"),
            *("old_secret_calls", "old_secret_last_used_at"),
        }
    )
    personal = frozenset({"name", "external_id", "meta", "allowed_networks"})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    access_key: Mapped[str] = mapped_column(BinaryText(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    mode: Mapped[str] = mapped_column(String(16))
    environment: Mapped[str | None] = mapped_column(BinaryText(ENVIRONMENT_BYTES))
    scopes: Mapped[tuple[str, ...]] = mapped_column(Words)
    roles: Mapped[tuple[str, ...]] = mapped_column(Words, default=())
    role_scopes: Mapped[tuple[str, ...]] = mapped_column(Words, default=())
    allowed_networks: Mapped[tuple[str, ...]] = mapped_column(Words, default=())
    limits: Mapped[tuple[RateLimit, ...]] = mapped_column(
        Json(tuple[RateLimit, ...], empty=()), nullable=True, default=()
    )
    quota: Mapped[Quota | None] = mapped_column(Json(Quota))
    has_credits: Mapped[bool] = mapped_column(default=False)
    external_id: Mapped[str | None] = mapped_column(BinaryText(EXTERNAL_ID_BYTES), index=True, unique=True)
    meta: Mapped[dict[str, Any]] = mapped_column(Json(dict[str, Any], empty={}), nullable=True, default=dict)
    status: Mapped[str] = mapped_column(String(16), default="active")
    secret_version: Mapped[int] = mapped_column(default=1)
    old_secret_calls: Mapped[int] = mapped_column(BigInteger, default=0)
    old_secret_last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now(), onupdate=utc_now())

    user: Mapped["User"] = relationship(back_populates="keys", lazy="raise")
    secrets: Mapped[list["KeySecret"]] = relationship(
        back_populates="api_key", lazy="raise", passive_deletes="all"
    )

    @property
    def all_scopes(self) -> tuple[str, ...]:
        """Return the scopes of the key and of its roles."""
        return joined(self.scopes, self.role_scopes)

    @property
    def audit_id(self) -> str:
        """Return the access key."""
        return self.access_key

    @classmethod
    def audit_verb(cls, after: Mapping[str, Any]) -> str:
        """Return the verb of a change; a report of a leaked secret notes `exposed` beside the columns."""
        if EXPOSED in after:
            return EXPOSED
        if after.get("status") == "revoked":
            return "revoked"
        return ROTATED if "secret_version" in after else CHANGED


class KeySecret(Base):
    """One version of a key's secret: its SHA-256 and, for a key that signs, the secret itself, sealed with the key ring.

    `expires_at` is None for the current secret, and the end of the grace period for the replaced one. A key has at most
    two secrets.
    """

    __tablename__ = "key_secrets"

    api_key_id: Mapped[int] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    secret_sha256: Mapped[bytes] = mapped_column(Binary(32), unique=True)
    sealed: Mapped[bytes | None] = mapped_column(Binary(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now())
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    api_key: Mapped[ApiKey] = relationship(back_populates="secrets", lazy="raise")
