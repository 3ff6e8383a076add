"""The single query of an authenticated call: a key, its owner, and the versions of its secret."""

import logging
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import ColumnElement, FromClause, Text, bindparam, select, type_coerce

from latchkey.models import ApiKey, KeySecret, User
from latchkey.service.authentication.records import KeyRecord, UserRecord
from latchkey.service.authentication.wire.extraction import Unauthenticated
from latchkey.service.database.prepared import Prepared
from latchkey.service.database.session import RequestSession

log = logging.getLogger("latchkey.authentication")

KEY_FIELDS = KeyRecord.__struct_fields__
USER_FIELDS = UserRecord.__struct_fields__


class NoKeyMatch(Unauthenticated):
    """No key has this access key or secret."""

    def __init__(self) -> None:
        super().__init__("no key matches")


class OwnerNotFound(Unauthenticated):
    """The key's owner has no row."""

    def __init__(self, access_key: str) -> None:
        super().__init__(f"the owner of {access_key} has no row")


class StoredSecret(msgspec.Struct, frozen=True, kw_only=True):
    """One stored version of a key's secret."""

    version: int
    secret_sha256: bytes
    sealed: bytes | None
    """None for a bearer key."""
    created_at: datetime
    expires_at: datetime | None
    """None for the current version."""

    def __repr__(self) -> str:
        return f"StoredSecret(version={self.version})"

    def is_live(self, now: datetime) -> bool:
        """Return whether the secret is still accepted."""
        return self.expires_at is None or self.expires_at > now


class Found(msgspec.Struct, frozen=True):
    """The result of a lookup."""

    key_id: int
    key: KeyRecord
    user: UserRecord
    secrets: tuple[StoredSecret, ...]
    """At most two, newest first; some may have expired. Versions that the key no longer has are left out."""
    lacks_newest: bool = False
    """Whether the key has secrets but not its newest one, because the database was changed by hand."""


class KeyLookup(Protocol):
    """The lookups that a cache can answer; this module is the one that asks the database."""

    def by_secret(self, session: RequestSession, secret_sha256: bytes, /) -> Awaitable[Found]:
        """Return the key that has this secret."""
        ...

    def by_access_key(self, session: RequestSession, access_key: str, /) -> Awaitable[Found]:
        """Return the key with this access key."""
        ...


SECRET_FIELDS = StoredSecret.__struct_fields__

_KEYS, _USERS, _SECRETS = ApiKey.__table__, User.__table__, KeySecret.__table__


def _columns(table: FromClause, fields: Sequence[str]) -> list[ColumnElement[Any]]:
    return [
        type_coerce(table.c.meta, Text).label(field) if field == "meta_json" else table.c[field]
        for field in fields
    ]


# Columns of the tables instead of entities: nothing here is changed, and a principal outlives its session.
_WITH_OWNER_AND_SECRETS = (
    select(
        _KEYS.c.id,
        *_columns(_KEYS, KEY_FIELDS),
        *_columns(_USERS, USER_FIELDS),
        *_columns(_SECRETS, SECRET_FIELDS),
    )
    .select_from(_KEYS)
    .outerjoin(_USERS, _USERS.c.id == _KEYS.c.user_id)
    .outerjoin(_SECRETS, _SECRETS.c.api_key_id == _KEYS.c.id)
)
_GIVEN = _SECRETS.alias()
BY_SECRET = Prepared(
    _WITH_OWNER_AND_SECRETS.where(
        _KEYS.c.id
        == select(_GIVEN.c.api_key_id)
        .where(_GIVEN.c.secret_sha256 == bindparam("secret_sha256"))
        .scalar_subquery()
    )
)
BY_ID_LOCKED = _WITH_OWNER_AND_SECRETS.where(_KEYS.c.id == bindparam("key_id")).with_for_update()
BY_ACCESS_KEY = Prepared(_WITH_OWNER_AND_SECRETS.where(_KEYS.c.access_key == bindparam("access_key")))


async def by_secret(session: RequestSession, secret_sha256: bytes) -> Found:
    """Return the key that has this secret, in either mode; the secret may be the current or the replaced one.

    Raises:
        NoKeyMatch: there is none.
        OwnerNotFound: its owner has no row.
    """
    return found_in(await session.read(BY_SECRET, {"secret_sha256": secret_sha256}))


async def by_access_key(session: RequestSession, access_key: str) -> Found:
    """Return the key with this access key.

    Raises:
        NoKeyMatch: there is none.
        OwnerNotFound: its owner has no row.
    """
    return found_in(await session.read(BY_ACCESS_KEY, {"access_key": access_key}))


async def by_id_locked(session: RequestSession, key_id: int) -> Found:
    """Lock a key, its owner and its secrets until the transaction ends, and return their current state.

    Raises:
        NoKeyMatch, OwnerNotFound: the row no longer exists.
    """
    rows = (await session.execute(BY_ID_LOCKED, {"key_id": key_id})).all()
    return found_in([tuple(row) for row in rows])


def found_in(rows: Sequence[Sequence[Any]]) -> Found:
    """Return the key in the rows of a lookup, or raise NoKeyMatch or OwnerNotFound."""
    if not rows:
        raise NoKeyMatch
    values = rows[0]
    end_of_key = 1 + len(KEY_FIELDS)
    end_of_user = end_of_key + len(USER_FIELDS)
    key = dict(zip(KEY_FIELDS, values[1:end_of_key], strict=True))
    user = dict(zip(USER_FIELDS, values[end_of_key:end_of_user], strict=True))
    if user["id"] is None:
        raise OwnerNotFound(key["access_key"])
    stored = [
        StoredSecret(**dict(zip(SECRET_FIELDS, row[end_of_user:], strict=True)))
        for row in rows
        if row[end_of_user] is not None
    ]
    secrets = [one for one in stored if belongs(one, key["secret_version"])]
    if len(secrets) < len(stored):
        log.error(
            "refused restored secrets of %s: they have the versions %s, and the key has version %d",
            key["access_key"],
            sorted({one.version for one in stored} - {one.version for one in secrets}),
            key["secret_version"],
        )
    return Found(
        key_id=values[0],
        key=KeyRecord(**key),
        user=UserRecord(**user),
        secrets=tuple(
            sorted(secrets, key=lambda one: -one.version)
        ),  # sorted here: in the query, the server would need a temporary table
        lacks_newest=bool(stored) and all(one.version != key["secret_version"] for one in stored),
    )


def belongs(stored: StoredSecret, newest: int) -> bool:
    """Return whether a rotation keeps this version: the newest, or the one before it if it has an expiry.

    Rotations delete older versions. An older row was restored, for example from a backup, and its secret may have
    been replaced because it leaked.
    """
    return stored.version == newest or (stored.version == newest - 1 and stored.expires_at is not None)
