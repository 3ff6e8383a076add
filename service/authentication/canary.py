"""The canary of a database: a known value, sealed with the key ring, which each start opens to detect a wrong ring.

Without it, a service with a wrong ring starts, answers calls with bearer keys, and fails only at the first signed call.

The first key of the ring seals, so each key that was ever the first one has a canary. To change the ring, put a new key
in front of the old one, run `latchkey keyring rewrap`, and remove the old one when nothing is sealed with it any more.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, insert, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import ApiKey, AuditHead, KeyringCanary, KeySecret, User, Webhook
from latchkey.service import clock
from latchkey.service.authentication.keyring import ID_BYTES, KeyRing, KeyRingError
from latchkey.service.authentication.wire.credentials import AccessKey

log = logging.getLogger("latchkey.authentication")

PLAINTEXT = b"latchkey"
SAMPLE = 100  # secrets that are tried where there is no canary yet

_KEYS, _SECRETS, _USERS = ApiKey.__table__, KeySecret.__table__, User.__table__
_WEBHOOKS = Webhook.__table__


class WrongKeyRingError(RuntimeError):
    """`LATCHKEY_KEYRING` is not the key ring that the database was used with."""

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"LATCHKEY_KEYRING is not the key ring of this database: {fault}. "
            "If the right ring is lost, `latchkey keyring --adopt` accepts this one."
        )


async def require_right_keyring(engine: AsyncEngine, keyring: KeyRing) -> None:
    """Check that a key ring is the one of the database; write a canary for its first key if there is none.

    Several processes may start at once. A database that cannot be written to is checked all the same.

    Args:
        engine: of the primary.
        keyring: the ring.

    Raises:
        WrongKeyRingError: the ring is another one, or lacks a key that the service needs.
    """
    canaries = await read_canaries(engine)
    if canaries:
        recognize(canaries, keyring)
        await require_keys_in_use(engine, canaries.keys() - keyring.ids)
    else:
        await require_a_secret_opens(engine, keyring)
    if keyring.first not in canaries:
        await leave(engine, keyring)


async def adopt(engine: AsyncEngine, keyring: KeyRing) -> None:
    """Accept a key ring for the database, in place of one that is lost."""
    async with engine.begin() as connection:
        await connection.execute(delete(KeyringCanary))
        await connection.execute(insert(KeyringCanary).values(new(keyring)))


async def read_canaries(engine: AsyncEngine) -> dict[int, bytes]:
    """Return the canaries by the id of their key."""
    async with engine.connect() as connection:
        rows = await connection.execute(select(KeyringCanary.key_id, KeyringCanary.sealed))
        return {key_id: bytes(sealed) for key_id, sealed in rows}


def recognize(canaries: Mapping[int, bytes], keyring: KeyRing) -> None:
    """Raise `WrongKeyRingError` unless the ring opens the canary of each of its keys, and at least one."""
    shared = canaries.keys() & keyring.ids
    for key_id in sorted(shared):
        try:
            keyring.open(canaries[key_id], context(key_id))
        except KeyRingError:
            raise WrongKeyRingError(f"its key {key_id} is another one") from None
    if not shared:
        raise WrongKeyRingError(
            f"it has {key_words(keyring.ids)}, and the database was used with {key_words(canaries)}"
        )


async def leave(engine: AsyncEngine, keyring: KeyRing) -> None:
    """Write the canary of the first key."""
    try:
        async with engine.begin() as connection:
            await connection.execute(insert(KeyringCanary).values(new(keyring)))
    except DBAPIError as error:
        canaries = await read_canaries(engine)
        if keyring.first in canaries:  # another process was faster, perhaps with another key
            recognize(canaries, keyring)
        else:
            log.warning(
                "the canary of the key ring could not be written, and the next start will try again: %s",
                error.orig,
            )


async def require_keys_in_use(engine: AsyncEngine, missing: Iterable[int]) -> None:
    """Raise `WrongKeyRingError` if the service needs a key that the ring lacks.

    It needs those of the secrets of active keys and of enabled webhooks, and that of the head of the audit log, without
    which no event can be sealed.
    """
    for key_id in sorted(missing):
        async with engine.connect() as connection:
            needing = await find_use(connection, key_id)
        if needing is not None:
            raise WrongKeyRingError(
                f"key {key_id} is missing, with which {needing} is sealed: add it again, and "
                "run `latchkey keyring rewrap` before you remove it"
            )


async def find_use(connection: AsyncConnection, key_id: int) -> str | None:
    """Return what the service needs a key of the ring for, as words; None if it does not need it."""
    proof = select(AuditHead.id).where(_is_of(AuditHead.proof, key_id))
    if (await connection.execute(proof)).first() is not None:
        return "the head of the audit log"
    is_replaced = _is_of(_WEBHOOKS.c.old_sealed, key_id) & (_WEBHOOKS.c.old_secret_expires_at > clock.now())
    webhooks = select(_WEBHOOKS.c.id).where(
        _WEBHOOKS.c.enabled, or_(_is_of(_WEBHOOKS.c.sealed, key_id), is_replaced)
    )
    if (webhook := (await connection.execute(webhooks.limit(1))).first()) is not None:
        return f"the secret of webhook {webhook.id}"
    secrets = _live().where(_is_of(_SECRETS.c.sealed, key_id)).limit(1)
    key = (await connection.execute(secrets)).first()
    return None if key is None else f"the secret of {key.access_key}"


def range_of(key_id: int) -> tuple[bytes, bytes]:
    """Return the bytes from which on, and before which, the values lie that are sealed with a key of the ring."""
    return key_id.to_bytes(ID_BYTES, "big"), (key_id + 1).to_bytes(ID_BYTES, "big")


def _is_of(column: Any, key_id: int) -> ColumnElement[bool]:
    first, following = range_of(key_id)
    return and_(column >= first, column < following)


async def require_a_secret_opens(engine: AsyncEngine, keyring: KeyRing) -> None:
    """Raise `WrongKeyRingError` if the ring opens none of the newest secrets, in a database without a canary."""
    async with engine.connect() as connection:
        rows = (await connection.execute(_live().limit(SAMPLE))).all()
    for row in rows:
        try:
            keyring.open_secret(bytes(row.sealed), AccessKey(row.access_key), row.version)
        except KeyRingError:
            continue
        return
    if rows:
        raise WrongKeyRingError(f"it does not open the secret of {rows[0].access_key}")


def _live() -> Select[Any]:
    """Select the sealed secrets that a call may be signed with, the newest keys first."""
    now = clock.now()
    return (
        select(_KEYS.c.access_key, _SECRETS.c.version, _SECRETS.c.sealed)
        .select_from(_SECRETS)
        .join(_KEYS, _KEYS.c.id == _SECRETS.c.api_key_id)
        .join(_USERS, _USERS.c.id == _KEYS.c.user_id)
        .where(
            _SECRETS.c.sealed.is_not(None),
            _KEYS.c.status == "active",
            _USERS.c.status == "active",
            or_(_SECRETS.c.expires_at.is_(None), _SECRETS.c.expires_at > now),
            or_(_KEYS.c.expires_at.is_(None), _KEYS.c.expires_at > now),
        )
        .order_by(_SECRETS.c.api_key_id.desc(), _SECRETS.c.version.desc())
    )


def new(keyring: KeyRing) -> dict[str, Any]:
    """Return the row of a canary of the ring's first key."""
    return {"key_id": keyring.first, "sealed": keyring.seal(PLAINTEXT, context(keyring.first))}


def context(key_id: int) -> bytes:
    """Return the associated data of a canary; that of a secret differs, because it ends with a version after a bar."""
    return f"canary {key_id}".encode()


def key_words(ids: Iterable[int]) -> str:
    """Return key ids as words: `key 1`, `keys 1, 2`."""
    texts = [str(one) for one in sorted(ids)]
    return f"key{'s' if len(texts) > 1 else ''} {', '.join(texts)}"
