"""The one query of an authenticated call: a key, its owner and the versions of its secret."""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, Select, bindparam, select
from sqlalchemy.orm import aliased

from models import ApiKey, KeySecret, User
from service import shapes
from service.authentication.extraction import Unauthenticated
from service.session import RequestSession

KEY_FIELDS = shapes.Key.__struct_fields__
USER_FIELDS = shapes.User.__struct_fields__


class NoKeyMatch(Unauthenticated):
    """No key has this public id or secret."""

    def __init__(self) -> None:
        super().__init__("no key matches")


class OwnerNotFound(Unauthenticated):
    """The key's owner has no row."""

    def __init__(self, access_key: str) -> None:
        super().__init__(f"the owner of {access_key} has no row")


class StoredSecret(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a key's secret, as it is stored."""

    version: int
    secret_sha256: bytes
    sealed: bytes | None
    """None of a bearer key's."""
    created_at: datetime
    expires_at: datetime | None
    """None of the current one."""

    def __repr__(self) -> str:
        return f"StoredSecret(version={self.version})"

    def is_live(self, now: datetime) -> bool:
        """Tell whether it still counts."""
        return self.expires_at is None or self.expires_at > now


class Found(msgspec.Struct, frozen=True):
    """What the lookup answers."""

    key_id: int
    key: shapes.Key
    user: shapes.User
    secrets: tuple[StoredSecret, ...]
    """At most two, the newest first; some may have ended."""


SECRET_FIELDS = StoredSecret.__struct_fields__

# Columns, not entities: nothing here is changed, and a principal outlives its session.
_COLUMNS = (
    ApiKey.id,
    *(getattr(ApiKey, name) for name in KEY_FIELDS),
    *(getattr(User, name) for name in USER_FIELDS),
    *(getattr(KeySecret, name) for name in SECRET_FIELDS),
)
_WITH_OWNER_AND_SECRETS = (
    select(*_COLUMNS)
    .select_from(ApiKey)
    .outerjoin(User, User.id == ApiKey.user_id)
    .outerjoin(KeySecret, KeySecret.api_key_id == ApiKey.id)
    .order_by(KeySecret.version.desc())
)
_Given = aliased(KeySecret)
BY_SECRET: Select[Any] = _WITH_OWNER_AND_SECRETS.where(
    ApiKey.id
    == select(_Given.api_key_id).where(_Given.secret_sha256 == bindparam("secret_sha256")).scalar_subquery()
)
BY_ACCESS_KEY: Select[Any] = _WITH_OWNER_AND_SECRETS.where(ApiKey.access_key == bindparam("access_key"))


async def by_secret(session: RequestSession, secret_sha256: bytes) -> Found:
    """Find the key that has this secret, of either mode, current or old.

    Raises:
        NoKeyMatch: there is none.
        OwnerNotFound: its owner is gone.
    """
    return _found(list(await session.execute(BY_SECRET, {"secret_sha256": secret_sha256})))


async def by_access_key(session: RequestSession, access_key: str) -> Found:
    """Find the key with this public id.

    Raises:
        NoKeyMatch: there is none.
        OwnerNotFound: its owner is gone.
    """
    return _found(list(await session.execute(BY_ACCESS_KEY, {"access_key": access_key})))


def _found(rows: list[Row[Any]]) -> Found:
    if not rows:
        raise NoKeyMatch
    values = tuple(rows[0])
    end_of_key = 1 + len(KEY_FIELDS)
    end_of_user = end_of_key + len(USER_FIELDS)
    key = dict(zip(KEY_FIELDS, values[1:end_of_key], strict=True))
    user = dict(zip(USER_FIELDS, values[end_of_key:end_of_user], strict=True))
    if user["id"] is None:
        raise OwnerNotFound(key["access_key"])
    return Found(
        key_id=values[0],
        key=shapes.Key(**key),
        user=shapes.User(**user),
        secrets=tuple(
            StoredSecret(**dict(zip(SECRET_FIELDS, row[end_of_user:], strict=True)))
            for row in rows
            if row[end_of_user] is not None
        ),
    )
