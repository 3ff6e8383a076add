"""Stored values that key 1 of a ring encrypts."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from sqlalchemy import insert, select

from latchkey.models import ApiKey, KeySecret, Scope, User, Webhook
from latchkey.service.audit.sealer import Sealer
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.database import SQLAlchemy
from latchkey.service.webhooks.rules import context
from tests.conftest import table_of


def access_key(number: int) -> AccessKey:
    return AccessKey(f"lka_{number:022d}")


def secret(number: int) -> Secret:
    return Secret(f"lks_{number:049d}")


async def hold_keys(db: SQLAlchemy, keyring: KeyRing, count: int) -> None:
    """Create signing keys, each with its number as its id."""
    async with db.scoped_session() as session:
        owner = await User.create(email="ann@example.com", name="Ann")
        await session.commit()
    keys = [
        {"id": one, "access_key": access_key(one), "user_id": owner.id, "name": "k", "mode": "signed", "scopes": ()}
        for one in range(1, count + 1)
    ]  # fmt: skip
    secrets = [
        {
            "api_key_id": one,
            "version": 1,
            "secret_sha256": sha256(secret(one).encode()).digest(),
            "sealed": keyring.seal_secret(secret(one), access_key(one), 1),
        }
        for one in range(1, count + 1)
    ]
    async with db.engine.begin() as connection:
        await connection.execute(insert(table_of(ApiKey)), keys)
        await connection.execute(insert(table_of(KeySecret)), secrets)


async def hold_webhook(db: SQLAlchemy, keyring: KeyRing) -> None:
    """Create the webhook 7, whose secret replaced another one."""
    sealed, old_sealed = (
        keyring.seal(f"whsec_{version}".encode(), context(7, version)) for version in (2, 1)
    )
    async with db.scoped_session() as session:
        session.add(
            Webhook(
                id=7,
                url="https://a.example/",
                secret_version=2,
                sealed=sealed,
                old_sealed=old_sealed,
                old_secret_expires_at=datetime.now(UTC) + timedelta(hours=1),
            )
        )
        await session.commit()


async def add_sealed_events(db: SQLAlchemy, keyring: KeyRing, *names: str) -> None:
    """Add an event to the audit log for each name, and seal all that are there."""
    async with db.scoped_session() as session:
        for name in names:
            await Scope.create(name=f"orders:{name}", noun="orders")
        await session.commit()
    await Sealer(db, keyring).seal()


async def opened_secrets(db: SQLAlchemy, keyring: KeyRing) -> list[Secret | None]:
    """Return the secrets of all keys, in the order of their ids; None for one that the ring does not decrypt."""
    rows = (
        select(ApiKey.access_key, KeySecret.version, KeySecret.sealed)
        .join(KeySecret, KeySecret.api_key_id == ApiKey.id)
        .order_by(ApiKey.id)
    )
    async with db.reader.connect() as connection:
        found = (await connection.execute(rows)).all()
    return [_opened(keyring, AccessKey(row.access_key), row.version, bytes(row.sealed)) for row in found]


def _opened(keyring: KeyRing, key: AccessKey, version: int, sealed: bytes) -> Secret | None:
    try:
        return keyring.open_secret(sealed, key, version)
    except KeyRingError:
        return None
