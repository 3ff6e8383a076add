"""The one query of an authenticated call: a key, its owner and, if it signs, its sealed secrets."""

from typing import Any

import msgspec
from sqlalchemy import Row, Select, bindparam, select

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


class SealedSecret(msgspec.Struct, frozen=True):
    """One version of a signing key's secret, as it is stored."""

    version: int
    sealed: bytes


class Found(msgspec.Struct, frozen=True):
    """What the lookup answers."""

    key_id: int
    secret_sha256: bytes | None
    key: shapes.Key
    user: shapes.User
    secrets: tuple[SealedSecret, ...]


# Columns, not entities: nothing here is changed, and a principal outlives its session.
_COLUMNS = (
    ApiKey.id,
    ApiKey.secret_sha256,
    *(getattr(ApiKey, name) for name in KEY_FIELDS),
    *(getattr(User, name) for name in USER_FIELDS),
)
_WITH_OWNER = select(*_COLUMNS).select_from(ApiKey).outerjoin(User, User.id == ApiKey.user_id)
BY_SECRET: Select[Any] = _WITH_OWNER.where(ApiKey.secret_sha256 == bindparam("secret_sha256"))
BY_ACCESS_KEY: Select[Any] = (
    _WITH_OWNER.add_columns(KeySecret.version, KeySecret.sealed)
    .outerjoin(KeySecret, KeySecret.api_key_id == ApiKey.id)
    .where(ApiKey.access_key == bindparam("access_key"))
    .order_by(KeySecret.version.desc())
)


async def by_secret(session: RequestSession, secret_sha256: bytes) -> Found:
    """Find the key that has this secret, of either mode.

    Raises:
        NoKeyMatch: there is none.
        OwnerNotFound: its owner is gone.
    """
    return _found(list(await session.execute(BY_SECRET, {"secret_sha256": secret_sha256})))


async def by_access_key(session: RequestSession, access_key: str) -> Found:
    """Find the key with this public id, and its sealed secrets, the newest first.

    Raises:
        NoKeyMatch: there is none.
        OwnerNotFound: its owner is gone.
    """
    return _found(list(await session.execute(BY_ACCESS_KEY, {"access_key": access_key})))


def _found(rows: list[Row[Any]]) -> Found:
    if not rows:
        raise NoKeyMatch
    values = tuple(rows[0])
    key_id, secret_sha256 = values[:2]
    end_of_key = 2 + len(KEY_FIELDS)
    end_of_user = end_of_key + len(USER_FIELDS)
    key = dict(zip(KEY_FIELDS, values[2:end_of_key], strict=True))
    user = dict(zip(USER_FIELDS, values[end_of_key:end_of_user], strict=True))
    if user["id"] is None:
        raise OwnerNotFound(key["access_key"])
    return Found(
        key_id=key_id,
        secret_sha256=secret_sha256,
        key=shapes.Key(**key),
        user=shapes.User(**user),
        secrets=tuple(
            SealedSecret(row[end_of_user], row[end_of_user + 1])
            for row in rows
            if len(row) > end_of_user and row[end_of_user] is not None
        ),
    )
