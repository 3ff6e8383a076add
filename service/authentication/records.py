"""The key and its owner as authentication reads them: the fields are the columns of the lookup."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from latchkey.models.limit import Quota, RateLimit


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it was stored when it was looked up; each field is a column of `ApiKey`."""

    access_key: str
    user_id: int
    name: str
    mode: Literal["bearer", "signed"]
    scopes: tuple[str, ...]
    allowed_networks: tuple[str, ...]
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    external_id: str | None
    meta: dict[str, Any]
    status: Literal["active", "revoked"]
    secret_version: int
    old_secret_calls: int
    old_secret_last_used_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    updated_at: datetime


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The owner of a key as it was stored when the key was looked up; each field is a column of `User`."""

    id: int
    email: str
    name: str
    status: Literal["active", "blocked", "deleted"]
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    external_id: str | None
    meta: dict[str, Any]
    created_at: datetime
    updated_at: datetime
