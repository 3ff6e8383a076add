"""New keys and secrets: the only module that generates a secret."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import delete, update

from latchkey.models import ApiKey, KeySecret, User
from latchkey.models.limit import Quota, RateLimit
from latchkey.service import clock
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.records import KeyRecord, environment_of
from latchkey.service.authentication.wire.credentials import (
    AccessKey,
    Secret,
    hash_secret,
    new_access_key,
    new_secret,
)
from latchkey.service.authentication.wire.imported_secrets import SecretFormat, SecretFormats

UNLOADED = {"synchronize_session": False}  # no instance of these rows is in the session


class Rotated(msgspec.Struct, frozen=True):
    """The result of a rotation."""

    secret: Secret
    ends_at: datetime | None
    """When the old secret ends; None when it has ended already."""

    def __repr__(self) -> str:
        return f"Rotated(ends_at={self.ends_at})"


class Issuer(msgspec.Struct, frozen=True):
    """Issues keys with a prefix, and seals the secrets of signing keys with the key ring."""

    prefix: str
    keyring: KeyRing
    environments: tuple[str, ...] = ("live", "test")
    """Their names; the secrets of the first one do not show it."""
    imported_formats: tuple[SecretFormat, ...] = ()
    """The formats of secrets that other systems made."""

    @property
    def formats(self) -> SecretFormats:
        """Return the formats of all bearer secrets."""
        return SecretFormats(self.prefix, self.imported_formats)

    def environment_of(self, key: ApiKey | KeyRecord) -> str:
        """Return the environment of a key."""
        return environment_of(key, self.environments)

    async def issue(
        self,
        owner: User,
        *,
        name: str,
        mode: str,
        environment: str | None = None,
        scopes: list[str],
        roles: tuple[str, ...] = (),
        role_scopes: tuple[str, ...] = (),
        expires_at: datetime | None,
        allowed_networks: tuple[str, ...] = (),
        limits: tuple[RateLimit, ...] = (),
        quota: Quota | None = None,
        external_id: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> tuple[ApiKey, Secret]:
        """Create a key of `owner` and flush it; return the key and its secret.

        The secret is returned only here, and is stored nowhere in plain text.
        """
        access_key, now = new_access_key(self.prefix), clock.now()
        secret, stored = self._new_secret(
            access_key, mode, environment or self.environments[0], version=1, now=now
        )
        key = await ApiKey.create(
            access_key=access_key,
            user_id=owner.id,
            name=name,
            mode=mode,
            environment=environment or self.environments[0],
            scopes=tuple(scopes),
            roles=roles,
            role_scopes=role_scopes,
            allowed_networks=allowed_networks,
            limits=limits,
            quota=quota,
            external_id=external_id,
            meta=meta or {},
            expires_at=expires_at,
            secrets=[stored],
        )
        return key, secret

    def adopt(self, digest: bytes, secret: Secret | None, **fields: Any) -> ApiKey:
        """Return a new key, not stored yet, whose secret another system made.

        Args:
            digest: the SHA-256 of the secret.
            secret: of a key that signs; None for a bearer key.
            fields: the values of its columns.
        """
        access_key = new_access_key(self.prefix)
        sealed = None if secret is None else self.keyring.seal_secret(secret, access_key, 1)
        stored = KeySecret(version=1, secret_sha256=digest, sealed=sealed, created_at=clock.now())
        return ApiKey(access_key=access_key, secrets=[stored], **fields)

    async def rotate(self, key: ApiKey, *, grace_s: int) -> Rotated:
        """Issue a new secret for a locked key; the secret that it replaces works during the grace period, older ones do not.

        Args:
            key: its row must be locked, so that two rotations run one after the other.
            grace_s: how long the replaced secret still works, in seconds; it ends earlier if the key does.
        """
        now, replaced = clock.now(), key.secret_version
        ends_at = now + timedelta(seconds=grace_s)
        if key.expires_at is not None:
            ends_at = min(ends_at, key.expires_at)
        has_grace = ends_at > now
        secret, stored = self._new_secret(
            AccessKey(key.access_key), key.mode, self.environment_of(key), version=replaced + 1, now=now
        )
        stored.api_key_id = key.id
        of_key = KeySecret.api_key_id == key.id
        ended = KeySecret.version < replaced if has_grace else KeySecret.version <= replaced
        async with ApiKey.resolve() as session:
            # Delete the secrets that have ended, so that a key never has more than two.
            await session.execute(delete(KeySecret).where(of_key, ended), execution_options=UNLOADED)
            if has_grace:
                await session.execute(
                    update(KeySecret).where(of_key).values(expires_at=ends_at), execution_options=UNLOADED
                )
        await stored.save()
        await key.update(secret_version=stored.version, old_secret_calls=0, old_secret_last_used_at=None)
        return Rotated(secret, ends_at if has_grace else None)

    def _new_secret(
        self, access_key: AccessKey, mode: str, environment: str, *, version: int, now: datetime
    ) -> tuple[Secret, KeySecret]:
        """Return a new secret and its row.

        The SHA-256 is stored for both modes: it identifies the secret of a signing key that was sent as a bearer token, and
        was therefore exposed. The hash of 256 random bits reveals nothing about them.
        """
        mark = None if environment == self.environments[0] else environment
        secret = new_secret(self.prefix, environment=mark)
        sealed = self.keyring.seal_secret(secret, access_key, version) if mode == "signed" else None
        return secret, KeySecret(
            version=version, secret_sha256=hash_secret(secret), sealed=sealed, created_at=now
        )
