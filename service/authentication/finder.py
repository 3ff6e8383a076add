"""What the verifiers of all forms share: the lookup of a key, its secrets, the clock, and the count of failures."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
from starlette.types import Scope

from latchkey.service.authentication.checks import Refused
from latchkey.service.authentication.failures import Failures
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.authentication.lookup import Found, KeyLookup, NoKeyMatch, StoredSecret
from latchkey.service.authentication.nonces import NonceClaim
from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.wire.credentials import AccessKey, Dummy, Secret, same
from latchkey.service.authentication.wire.extraction import Unauthenticated
from latchkey.service.authentication.wire.imported_secrets import SecretFormat, SecretFormats
from latchkey.service.networks import Proxies
from latchkey.service.problems import Problem

log = logging.getLogger("latchkey.authentication")

ANY_BEARER = (
    ""  # a bearer token has no access key, so all bearer failures of one address are counted together
)

LIVE_SECRETS = 2  # the current secret and the one that it replaced


class Proved(msgspec.Struct, frozen=True, kw_only=True):
    """A verified credential, and its requirements on the rest of the request."""

    found: Found
    secret: StoredSecret
    """The secret that was sent, or that the signature was made with."""
    digest: bytes | None = None
    """The SHA-256 that the body must have; None when nothing covers the body."""
    missing: tuple[str, ...] = ()
    """The parts that the signature should have covered and did not."""
    claim: NonceClaim | None = None
    """The nonce to reserve."""


class KeyFinder:
    """Finds the key and the secret that prove a call.

    Args:
        keyring: opens the secrets of keys that sign.
        prefix: of access keys and secrets.
        window_s: the allowed difference between a signature's time and the clock, in seconds, in either direction.
        proxies: determines the client address.
        failures: counts failed authentications.
        public_authority: the authority that signatures cover; None uses each request's Host.
        public_scheme: the scheme of the URLs that signatures cover; None uses that of each request.
        clock: returns unix seconds.
        imported_formats: the formats of bearer secrets that other systems made.
    """

    def __init__(
        self,
        *,
        keyring: KeyRing,
        prefix: str,
        window_s: int,
        proxies: Proxies,
        failures: Failures,
        public_authority: str | None,
        public_scheme: str | None,
        clock: Callable[[], float],
        imported_formats: tuple[SecretFormat, ...] = (),
    ) -> None:
        self.keyring = keyring
        self.prefix = prefix
        self.formats = SecretFormats(prefix, imported_formats)
        self.window_s = window_s
        self.proxies = proxies
        self.failures = failures
        self.public_authority = public_authority
        self.public_scheme = public_scheme
        self.clock = clock
        self.dummy = Dummy.new(prefix)
        self._dummy_sealed = StoredSecret(
            version=1,
            secret_sha256=self.dummy.secret_hash,
            sealed=keyring.seal_secret(self.dummy.secret, self.dummy.access_key, 1),
            created_at=datetime.min.replace(tzinfo=UTC),
            expires_at=None,
        )

    async def find_signer(
        self, scope: Scope, access_key: AccessKey, keys: KeyLookup, proves: Callable[[Secret], bool]
    ) -> tuple[Found, StoredSecret]:
        """Return a key that signs, and the live secret of it for which `proves` returns True.

        A failed signature always costs two secret checks, padded with dummies, so timing reveals neither whether the
        key exists nor whether it was rotated. A signature with the newest secret costs one: its sender knows both.

        Raises:
            Refused: 500, if a stored secret cannot be decrypted and no other one proves the call.
        """
        failure: Unauthenticated | None = None
        is_damaged = False
        found: Found | None = None
        live: list[StoredSecret] = []
        try:
            found = await keys.by_access_key(call_state(scope)["session"], access_key)
        except Unauthenticated as error:
            failure = error
        if found is not None:
            call_state(scope)["key_id"] = found.key_id
        if found is not None and signs(found, access_key):
            now = self.moment()
            live = [one for one in found.secrets if one.is_live(now)]
            is_damaged = found.lacks_newest
            if is_damaged:
                log.error(
                    "the newest secret of %s, version %d, is missing", access_key, found.key.secret_version
                )
            for stored in live:
                secret = self.open_secret(access_key, stored)
                if proves(secret or self.dummy.secret) and secret is not None:
                    return found, stored
                is_damaged = is_damaged or secret is None
        else:
            failure = failure or Unauthenticated("a signature with a key that does not sign")
        for _ in range(LIVE_SECRETS - len(live)):
            proves(self.open_secret(self.dummy.access_key, self._dummy_sealed) or self.dummy.secret)
        if is_damaged:
            raise Refused(Problem("internal_error"))
        raise failure or Unauthenticated("a wrong signature")

    @contextlib.contextmanager
    def counting(self, scope: Scope, access_key: str) -> Iterator[None]:
        """Refuse a call from an address and access key with too many failures; otherwise count the call if it fails."""
        pair = self.proxies.client(scope), access_key
        wait_s = self.failures.wait_s(pair) if self.failures else 0
        if wait_s:
            raise Refused(Problem("too_many_failures", headers={"retry-after": str(wait_s)}))
        try:
            yield
        except Unauthenticated as error:
            self.failures.note(pair)
            if isinstance(error, NoKeyMatch) and access_key != ANY_BEARER:
                self.failures.note_unknown(pair[0])
            raise
        else:
            if access_key != ANY_BEARER:
                self.failures.note_success(pair)

    def moment(self) -> datetime:
        """Return the current time of the clock."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def open_secret(self, access_key: AccessKey, stored: StoredSecret) -> Secret | None:
        """Return a stored secret in plain text; None, and a line in the log, if it cannot be decrypted."""
        try:
            return self.keyring.open_secret(stored.sealed or b"", access_key, stored.version)
        except KeyRingError as error:
            log.error(  # noqa: TRY400 - the traceback says nothing more
                "the secret of %s, version %d, does not open: %s", access_key, stored.version, error
            )
            return None


def signs(found: Found, access_key: AccessKey) -> bool:
    """Return whether the key that was found signs, and has exactly this access key."""
    return found.key.mode == "signed" and same(found.key.access_key.encode(), access_key.encode())
