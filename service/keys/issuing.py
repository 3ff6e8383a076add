"""New keys: the one place where a secret is made."""

from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import delete, update

from latchkey.models import ApiKey, KeySecret, User
from latchkey.models.limit import Quota, RateLimit
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.wire.credentials import (
    AccessKey,
    Secret,
    hash_secret,
    new_access_key,
    new_secret,
)

UNLOADED = {"synchronize_session": False}  # no instance of these rows is in the session


class Rotated(msgspec.Struct, frozen=True):
    """What a rotation made."""

    secret: Secret
    ends_at: datetime | None
    """When the old secret ends; None when it has."""

    def __repr__(self) -> str:
        return f"Rotated(ends_at={self.ends_at})"


class Issuer(msgspec.Struct, frozen=True):
    """Makes keys with a prefix, and seals under a key ring what must be opened again."""

    prefix: str
    keyring: KeyRing

    async def issue(
        self,
        owner: User,
        *,
        name: str,
        mode: str,
        scopes: list[str],
        expires_at: datetime | None,
        allowed_networks: tuple[str, ...] = (),
        limits: tuple[RateLimit, ...] = (),
        quota: Quota | None = None,
    ) -> tuple[ApiKey, Secret]:
        """Make a key of `owner` and flush it; the secret is in the answer and, in plain, nowhere else."""
        access_key, now = new_access_key(self.prefix), datetime.now(UTC)
        secret, stored = self._new_secret(access_key, mode, version=1, now=now)
        key = await ApiKey.create(
            access_key=access_key,
            user_id=owner.id,
            name=name,
            mode=mode,
            scopes=tuple(scopes),
            allowed_networks=allowed_networks,
            limits=limits,
            quota=quota,
            expires_at=expires_at,
            secrets=[stored],
        )
        return key, secret

    async def rotate(self, key: ApiKey, *, grace_s: int) -> Rotated:
        """Give a key, which is locked, another secret; the one before works on for a grace, and none before that.

        Args:
            key: whose row is locked, so that of two rotations one comes after the other.
            grace_s: how long the old secret still works, in seconds, unless the key itself ends before.
        """
        now, replaced = datetime.now(UTC), key.secret_version
        ends_at = now + timedelta(seconds=grace_s)
        if key.expires_at is not None:
            ends_at = min(ends_at, key.expires_at)
        has_grace = ends_at > now
        secret, stored = self._new_secret(AccessKey(key.access_key), key.mode, version=replaced + 1, now=now)
        stored.api_key_id = key.id
        of_key = KeySecret.api_key_id == key.id
        ended = KeySecret.version < replaced if has_grace else KeySecret.version <= replaced
        async with ApiKey.resolve() as session:
            # What has ended goes, so that a key never has more than two.
            await session.execute(delete(KeySecret).where(of_key, ended), execution_options=UNLOADED)
            if has_grace:
                await session.execute(
                    update(KeySecret).where(of_key).values(expires_at=ends_at), execution_options=UNLOADED
                )
        await stored.save()
        await key.update(secret_version=stored.version, old_secret_calls=0, old_secret_last_used_at=None)
        return Rotated(secret, ends_at if has_grace else None)

    def _new_secret(
        self, access_key: AccessKey, mode: str, *, version: int, now: datetime
    ) -> tuple[Secret, KeySecret]:
        """Make a secret and its row.

        The SHA-256 is kept for both modes: with it a signing key's secret that is sent as a bearer is
        recognised as exposed. Of 256 random bits it gives nothing away.
        """
        secret = new_secret(self.prefix)
        sealed = self.keyring.seal_secret(secret, access_key, version) if mode == "signed" else None
        return secret, KeySecret(
            version=version, secret_sha256=hash_secret(secret), sealed=sealed, created_at=now
        )
