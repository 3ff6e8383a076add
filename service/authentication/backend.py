"""The authenticator: the pure rules in their order, with one lookup between them.

The order is a security property: shape and size, which credential, lookup, proof, clock. Until there
every failure is the same 401. Then key and owner, coverage, scope.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from service.authentication import lookup, query_signature
from service.authentication.credentials import (
    AccessKey,
    Dummy,
    Secret,
    hash_secret,
    parse_access_key,
    parse_secret,
    same,
)
from service.authentication.extraction import (
    Bearer,
    MessageSigned,
    QuerySigned,
    TwoCredentials,
    Unauthenticated,
    extract,
)
from service.authentication.keyring import KeyRing, KeyRingError
from service.authentication.lookup import Found, NoKeyMatch, SealedSecret
from service.authentication.principal import Principal
from service.problems import Problem

log = logging.getLogger("latchkey.authentication")

EMPTY_BODY = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")  # SHA-256


class Refused(AuthenticationError):  # noqa: N818 - a verdict, as Unauthenticated is
    """The call is refused with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def answer_refusal(connection: HTTPConnection, error: AuthenticationError) -> Response:
    """Answer for `AuthenticationMiddleware`, whose own answer would be a 400 in plain text."""
    assert isinstance(error, Refused)  # noqa: S101 - what the backend below raises
    return error.problem.response(connection.scope["state"].get("request_id"))


class Verifier:
    """What checking a credential needs; one for the application.

    Args:
        keyring: opens the secrets of keys that sign.
        prefix: of public ids and secrets.
        window_s: how far a signature's clock may be off, in seconds, either way.
        note_use: told the id of a key that was used, and when.
        clock: unix seconds.
    """

    def __init__(
        self,
        *,
        keyring: KeyRing,
        prefix: str,
        window_s: int,
        note_use: Callable[[int, datetime], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keyring = keyring
        self.prefix = prefix
        self.window_s = window_s
        self.note_use = note_use
        self.clock = clock
        self.dummy = Dummy.new(prefix)
        self._dummy_sealed = SealedSecret(1, keyring.seal_secret(self.dummy.secret, self.dummy.access_key, 1))

    async def verify(self, scope: Scope) -> Principal:
        """Tell who makes this request.

        Raises:
            TwoCredentials, Unauthenticated: as `extract`, or nothing proves the caller.
            Refused: the credential is right, but key, owner or coverage are not.
        """
        credential = extract(scope["headers"], scope["query_string"])
        match credential:
            case Bearer():
                found = await self._bearer(scope, credential)
                digest: bytes | None = None
                missing: tuple[str, ...] = ()
            case QuerySigned():
                found, signature = await self._query_signed(scope, credential)
                digest = self._digest(scope, signature)
                missing = query_signature.missing_coverage(signature, scope["method"], has_body(scope))
            case MessageSigned():
                raise Unauthenticated("message signatures are not taken yet")
            case None:
                raise Unauthenticated("no credential")
        now = datetime.fromtimestamp(self.clock(), UTC)
        require_active(found, now)
        if missing:
            raise Refused(Problem("coverage_required", f"The signature must cover {', '.join(missing)}."))
        self.note_use(found.key_id, now)
        return Principal(
            user=found.user,
            key=found.key,
            scopes=frozenset(found.key.scopes),
            signed_by_query=isinstance(credential, QuerySigned),
            content_sha256=digest,
        )

    async def _bearer(self, scope: Scope, credential: Bearer) -> Found:
        secret = parse_secret(credential.token, self.prefix)
        if secret is None:
            raise Unauthenticated("a bearer token that is no secret, or has a typo")
        digest = hash_secret(secret)
        found = await lookup.by_secret(scope["state"]["session"], digest)
        if not same(found.secret_sha256 or b"", digest):
            raise NoKeyMatch
        if found.key.mode != "bearer":
            log.warning(
                "the secret of the signing key %s was sent as a bearer: rotate it", found.key.access_key
            )
            raise Unauthenticated("a signing key's secret sent as a bearer")
        return found

    async def _query_signed(
        self, scope: Scope, credential: QuerySigned
    ) -> tuple[Found, query_signature.QuerySignature]:
        signature = query_signature.parse(credential.query_string, credential.secret_header)
        access_key = parse_access_key(signature.access_key, self.prefix)
        if access_key is None:
            raise Unauthenticated("a key parameter that is no public id")
        failure: Unauthenticated | None = None
        found: Found | None = None
        try:
            found = await lookup.by_access_key(scope["state"]["session"], access_key)
        except Unauthenticated as error:
            failure = error
        if (
            found is None
            or found.key.mode != "signed"
            or not same(found.key.access_key.encode(), access_key.encode())
        ):
            # The same work for a key that is not there, so that time does not tell.
            self._proves(signature, self.dummy.access_key, (self._dummy_sealed,))
            raise failure or Unauthenticated("a signature with a key that does not sign")
        if not self._proves(signature, found.key.access_key, found.secrets):
            raise Unauthenticated("a wrong signature")
        raw_path = scope.get("raw_path") or scope["path"].encode()
        if not query_signature.covers(signature, scope["method"], raw_path):
            raise Unauthenticated("a signature of another method or path")
        if not query_signature.in_window(signature.timestamp, self.clock(), self.window_s):
            raise Unauthenticated("a timestamp outside the clock window")
        return found, signature

    def _proves(
        self,
        signature: query_signature.QuerySignature,
        access_key: str,
        secrets: tuple[SealedSecret, ...],
    ) -> bool:
        return any([query_signature.proves(signature, self._open(access_key, one)) for one in secrets])  # noqa: C419 - all of them, always: the same work

    def _open(self, access_key: str, secret: SealedSecret) -> Secret:
        try:
            return self.keyring.open_secret(secret.sealed, AccessKey(access_key), secret.version)
        except KeyRingError:
            log.exception("the secret of %s does not open with this key ring", access_key)
            return self.dummy.secret

    @staticmethod
    def _digest(scope: Scope, signature: query_signature.QuerySignature) -> bytes | None:
        if signature.content_sha256 is not None:
            return bytes.fromhex(signature.content_sha256)
        # An unsafe call that signs no digest signs that there is no body.
        return None if scope["method"] in query_signature.SAFE_METHODS else EMPTY_BODY


def require_active(found: Found, now: datetime) -> None:
    """Refuse a key that is revoked or expired, or whose owner is not active."""
    if found.key.status != "active":
        raise Refused(Problem("key_revoked"))
    if found.key.expires_at is not None and found.key.expires_at <= now:
        raise Refused(Problem("key_expired"))
    if found.user.status != "active":
        raise Refused(Problem("owner_inactive"))


def has_body(scope: Scope) -> bool:
    """Tell from the headers whether a body follows (RFC 9112, section 6)."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )


class KeyBackend(AuthenticationBackend):
    """The authenticator of one route: who calls, and may they call this?"""

    def __init__(self, verifier: Verifier, scope: str | None) -> None:
        self.verifier = verifier
        self.required = scope

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Principal]:
        """Answer the caller, or raise `Refused`."""
        try:
            principal = await self.verifier.verify(conn.scope)
        except TwoCredentials as error:
            raise Refused(Problem("two_credentials")) from error
        except Unauthenticated as error:
            log.info("refused: %s", error.reason)
            raise Refused(Problem("unauthenticated")) from error
        if self.required is not None and self.required not in principal.scopes:
            raise Refused(Problem("scope_missing", f"The key lacks the scope {self.required}."))
        return AuthCredentials(list(principal.key.scopes)), principal
