"""New keys: the one place where a secret is made."""

from datetime import datetime

import msgspec

from models import ApiKey, KeySecret, User
from service.authentication.credentials import Secret, hash_secret, new_access_key, new_secret
from service.authentication.keyring import KeyRing


class Issuer(msgspec.Struct, frozen=True):
    """Makes keys with a prefix, and seals under a key ring what must be opened again."""

    prefix: str
    keyring: KeyRing

    async def issue(
        self, owner: User, *, name: str, mode: str, scopes: list[str], expires_at: datetime | None
    ) -> tuple[ApiKey, Secret]:
        """Make a key of `owner` and flush it; the secret is in the answer and, in plain, nowhere else.

        The SHA-256 is kept for both modes: with it a signing key's secret that is sent as a bearer is
        recognised as exposed. Of 256 random bits it gives nothing away.
        """
        access_key, secret = new_access_key(self.prefix), new_secret(self.prefix)
        sealed = (
            [KeySecret(version=1, sealed=self.keyring.seal_secret(secret, access_key, 1))]
            if mode == "signed"
            else []
        )
        key = await ApiKey.create(
            access_key=access_key,
            user_id=owner.id,
            name=name,
            mode=mode,
            scopes=tuple(scopes),
            secret_sha256=hash_secret(secret),
            expires_at=expires_at,
            secrets=sealed,
        )
        return key, secret
