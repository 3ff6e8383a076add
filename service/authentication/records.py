"""The key and its owner as authentication reads them: the fields are the columns of the lookup.

The key cache hands the same record to many calls, so nothing in a record can be changed. The metadata is kept as text.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from latchkey.models import ApiKey
from latchkey.models.limit import Quota, RateLimit
from latchkey.models.scope import joined


def meta_in(json: str | None) -> dict[str, Any]:
    """Return the metadata in a column, in which NULL is an empty object."""
    found: dict[str, Any] = {} if json is None else msgspec.json.decode(json)
    return found


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it was stored when it was looked up; each field is a column of `ApiKey`."""

    access_key: str
    user_id: int
    name: str
    mode: Literal["bearer", "signed"]
    environment: str | None
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    role_scopes: tuple[str, ...]
    allowed_networks: tuple[str, ...]
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    has_credits: bool
    external_id: str | None
    meta_json: str | None
    status: Literal["active", "revoked"]
    secret_version: int
    old_secret_calls: int
    old_secret_last_used_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def all_scopes(self) -> tuple[str, ...]:
        """Return the scopes of the key and of its roles."""
        return joined(self.scopes, self.role_scopes)

    @property
    def meta(self) -> dict[str, Any]:
        """Return the metadata, decoded anew each time."""
        return meta_in(self.meta_json)


class UserRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The owner of a key as it was stored when the key was looked up; each field is a column of `User`."""

    id: int
    email: str
    name: str
    status: Literal["active", "blocked", "deleted"]
    limits: tuple[RateLimit, ...]
    quota: Quota | None
    external_id: str | None
    meta_json: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def meta(self) -> dict[str, Any]:
        """Return the metadata, decoded anew each time."""
        return meta_in(self.meta_json)


def environment_of(key: ApiKey | KeyRecord, environments: Sequence[str]) -> str:
    """Return the environment of a key; an older key without one is in the first."""
    return key.environment or environments[0]
