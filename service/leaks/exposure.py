"""What happens to a key whose secret was found in public: it is revoked, or it ends after a grace period."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from urllib.parse import unquote

import msgspec
from sqlalchemy import select, update

from latchkey.models import ApiKey, KeySecret
from latchkey.models.audited import EXPOSED
from latchkey.models.journal import note_change
from latchkey.service import clock
from latchkey.service.authentication.wire.credentials import SecretHash, hash_secret
from latchkey.service.authentication.wire.imported_secrets import SecretFormats
from latchkey.service.keys.rules import revoke
from latchkey.service.leaks.shapes import URL_LENGTH


class Found(msgspec.Struct, frozen=True):
    """A text that was found somewhere and may be a secret."""

    text: str
    url: str | None = None

    def __repr__(self) -> str:
        return "Found(text=<hidden>)"


class Finding(msgspec.Struct, frozen=True):
    """What is known of a text."""

    access_key: str | None = None
    """The key whose secret it is or was; None if there is none."""
    works_until: datetime | None = None
    """The time at which the secret ends; None if it works no longer."""


class Holder(msgspec.Struct):
    """A locked key, and the version of its secret that was found."""

    key: ApiKey
    version: int
    expires_at: datetime | None

    def can_work(self, now: datetime) -> bool:
        """Return whether the secret works, or would work again if somebody moved the end of the key."""
        if self.key.status == "revoked":
            return False
        return self.is_current or (self.expires_at is not None and self.expires_at > now)

    @property
    def is_current(self) -> bool:
        """Return whether no rotation has replaced the secret."""
        return self.version == self.key.secret_version


class ExposureRules(msgspec.Struct, frozen=True):
    """What a report of leaked secrets does.

    Args:
        formats: of bearer secrets; those of keys that sign have the format of the installation.
        grace_s: how long a leaked secret still works, in seconds; with 0 its key is revoked at once.
    """

    formats: SecretFormats
    grace_s: int

    def digest_of(self, text: str) -> SecretHash | None:
        """Return the SHA-256 of a secret; None for a text that cannot be one, for example because its checksum is wrong."""
        secret = self.formats.parse(text)
        return None if secret is None else hash_secret(secret)

    async def report(self, found: Sequence[Found], source: str) -> list[Finding]:
        """End the secrets among some texts, and return what is known of each text, in the same order.

        A text without the format of a secret costs no query. Each key whose secret could still work leaves one event.

        Args:
            found: the texts.
            source: the reporter, for the audit log and the event.
        """
        digests = [self.digest_of(one.text) for one in found]
        holders = await lock_holders({digest for digest in digests if digest is not None})
        now = clock.now()
        findings: dict[bytes, Finding] = {}
        # The current secret of a key after its replaced one, so that the event is about the current one.
        for digest, holder in sorted(holders.items(), key=lambda item: item[1].version):
            place = next(one for one, sent in zip(found, digests, strict=True) if sent == digest)
            works_until = await self._end(holder, source, public_url(place), now)
            findings[digest] = Finding(holder.key.access_key, works_until)
        return [findings.get(digest or b"", Finding()) for digest in digests]

    async def _end(self, holder: Holder, source: str, url: str | None, now: datetime) -> datetime | None:
        """End one secret, and return until when it works; None if it works no longer."""
        if not holder.can_work(now):
            return None
        key = holder.key
        exposed = {"secret_version": holder.version, "source": source, "url": url}
        async with ApiKey.resolve() as session:
            note_change(session, key, before={}, after={EXPOSED: exposed})
            ends = [now + timedelta(seconds=self.grace_s), key.expires_at, holder.expires_at]
            works_until = min(end for end in ends if end is not None)
            if not holder.is_current:
                of_version = (KeySecret.api_key_id == key.id, KeySecret.version == holder.version)
                await session.execute(
                    update(KeySecret).where(*of_version).values(expires_at=works_until),
                    execution_options={"synchronize_session": False},  # the secret is not in the session
                )
                await key.update(updated_at=now)  # so that caches forget the key
            elif self.grace_s:
                await key.update(expires_at=works_until)
            else:
                await revoke(key)
        return works_until if works_until > now else None


async def lock_holders(digests: Collection[bytes]) -> dict[bytes, Holder]:
    """Return the keys that have or had some secrets, by the SHA-256 of the secret, locked until the transaction ends."""
    if not digests:
        return {}
    given = KeySecret.secret_sha256.in_(digests)
    async with ApiKey.resolve() as session:
        ids = set((await session.execute(select(KeySecret.api_key_id).where(given))).scalars())
        if not ids:
            return {}
        rows = await ApiKey.filter(id__in=sorted(ids)).order_by("id").for_update().all()
        keys = {key.id: key for key in rows}
        # Read again under the lock: a rotation may have ended meanwhile.
        columns = (KeySecret.secret_sha256, KeySecret.api_key_id, KeySecret.version, KeySecret.expires_at)
        secrets = await session.execute(select(*columns).where(given, KeySecret.api_key_id.in_(keys)))
        return {
            bytes(digest): Holder(keys[key_id], version, expires_at)
            for digest, key_id, version, expires_at in secrets
        }


def public_url(found: Found) -> str | None:
    """Return the URL of a text; None if there is none, it contains the text itself, or it is longer than is stored."""
    url = found.url
    if not url or len(url) > URL_LENGTH or found.text in url or found.text in unquote(url):
        return None
    return url
