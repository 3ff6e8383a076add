"""The authenticator: pure checks in a fixed order, with one lookup between them.

The order is a security property: shape and size, choice of the credential, lookup, proof, clock. Up to
that point every failure is the same 401, and a client that fails too often is refused before the lookup.
The checks of key and owner, client address, coverage and scope follow.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from latchkey.service.authentication import lookup
from latchkey.service.authentication.failures import Failures
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.authentication.lookup import Found, KeyLookup, NoKeyMatch, StoredSecret
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.records import KeyRecord, UserRecord
from latchkey.service.authentication.refusal import accept_signature, challenge, claimed_key
from latchkey.service.authentication.replay import NonceClaim
from latchkey.service.authentication.retirement import retirement_of
from latchkey.service.authentication.scopes import holds
from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.wire import advice, message_signature, query_signature
from latchkey.service.authentication.wire.credentials import (
    AccessKey,
    Dummy,
    Secret,
    hash_secret,
    parse_access_key,
    parse_secret,
    same,
)
from latchkey.service.authentication.wire.extraction import (
    Bearer,
    IllFormed,
    MessageSigned,
    QuerySigned,
    TwoCredentials,
    Unauthenticated,
    extract,
)
from latchkey.service.methods import SAFE_METHODS
from latchkey.service.networks import Address, Proxies, contains, read_networks
from latchkey.service.problems import Problem, scope_missing

log = logging.getLogger("latchkey.authentication")

ANY_BEARER = (
    ""  # a bearer token has no access key, so all bearer failures of one address are counted together
)

LIVE_SECRETS = 2  # the current secret and the one that it replaced


class Refused(AuthenticationError):  # noqa: N818 - a verdict, as Unauthenticated is
    """Raised when a call is refused with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def answer_refusal(connection: HTTPConnection, error: AuthenticationError) -> Response:
    """Return the response for `AuthenticationMiddleware`, whose default is a 400 in plain text."""
    assert isinstance(error, Refused)  # noqa: S101 - what the backend below raises
    scope = connection.scope
    response = error.problem.response(call_state(scope).get("request_id"))
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        response.headers["accept-signature"] = accept_signature(scope, has_body=has_body(scope))
    return response


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


class Verifier:
    """Verifies credentials; there is one for the application.

    Args:
        keyring: opens the secrets of keys that sign.
        keys: looks keys up.
        prefix: of access keys and secrets.
        window_s: the allowed difference between a signature's time and the clock, in seconds, in either direction.
        note_use: called with the id of a key that was used, and the time.
        note_old_use: called with the id of a key whose replaced secret was used, the version of that secret, and the
            time.
        proxies: determines the client address.
        failures: counts failed authentications.
        public_authority: the authority that signatures cover; None uses each request's Host.
        key_headers: the names of headers that may carry the secret of a bearer key.
        clock: returns unix seconds.
    """

    def __init__(
        self,
        *,
        keyring: KeyRing,
        keys: KeyLookup,
        prefix: str,
        window_s: int,
        note_use: Callable[[int, datetime], None],
        note_old_use: Callable[[int, int, datetime], None],
        proxies: Proxies,
        failures: Failures,
        public_authority: str | None = None,
        key_headers: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keyring = keyring
        self.keys = keys
        self.primary: KeyLookup = lookup
        self.prefix = prefix
        self.window_s = window_s
        self.note_use = note_use
        self.note_old_use = note_old_use
        self.proxies = proxies
        self.failures = failures
        self.public_authority = public_authority
        self.key_headers = frozenset(name.lower().encode() for name in key_headers)
        self.challenge = challenge(key_headers)
        self.clock = clock
        self.dummy = Dummy.new(prefix)
        self._dummy_sealed = StoredSecret(
            version=1,
            secret_sha256=self.dummy.secret_hash,
            sealed=keyring.seal_secret(self.dummy.secret, self.dummy.access_key, 1),
            created_at=datetime.min.replace(tzinfo=UTC),
            expires_at=None,
        )

    async def verify(self, scope: Scope) -> Principal:
        """Return the caller of this request.

        Raises:
            TwoCredentials, Unauthenticated: `extract` raised it, or nothing proves the caller's identity.
            Refused: the credential is valid, but its key, owner, client address or coverage is not acceptable; or
                there were too many failures before.
        """
        credential = extract(scope["headers"], scope["query_string"], self.key_headers)
        # A call with an effect is checked against the current state of the database; only reads may use cached keys.
        keys = self.keys if scope["method"] in SAFE_METHODS else self.primary
        match credential:
            case Bearer():
                with self._counting(scope, ANY_BEARER):
                    proved = await self._bearer(scope, credential, keys)
            case QuerySigned():
                proved = await self._query_signed(scope, credential, keys)
            case MessageSigned():
                proved = await self._message_signed(scope, keys)
            case None:
                raise IllFormed(
                    "no credential", advice.NO_CREDENTIAL.advice(scope["query_string"].decode("latin-1"))
                )
        found = proved.found
        state = call_state(scope)
        state["proved_key"] = found.key.access_key
        now = self.moment()
        require_active(found, now)
        retirement = state["retirement"] = retirement_of(found, proved.secret)
        if retirement is not None:
            self.note_old_use(found.key_id, retirement.version, now)
        state["found"] = found
        self._require_network(scope, found)
        if proved.missing:
            raise Refused(
                Problem("coverage_required", f"The signature must cover {', '.join(proved.missing)}.")
            )
        self.note_use(found.key_id, now)
        return Principal(
            key_id=found.key_id,
            secret_version=proved.secret.version,
            user=found.user,
            key=found.key,
            scopes=frozenset(found.key.scopes),
            signed_by_query=isinstance(credential, QuerySigned),
            content_sha256=proved.digest,
            claim=proved.claim,
        )

    def is_refused_by_shape(self, scope: Scope) -> bool:
        """Return whether `verify` would refuse a request for the shape of its credential, without any lookup."""
        try:
            credential = extract(scope["headers"], scope["query_string"], self.key_headers)
        except (TwoCredentials, Unauthenticated):
            return True
        if isinstance(credential, Bearer):
            return parse_secret(credential.token, self.prefix) is None
        return credential is None

    async def hold(self, scope: Scope) -> Principal:
        """Lock the caller's key and owner until the transaction ends, and check the call against their current state.

        Raises:
            Problem: the key or its owner may no longer make this call.
        """
        principal: Principal = scope["user"]
        state = call_state(scope)
        try:
            found = await lookup.by_id_locked(state["session"], principal.key_id)
        except Unauthenticated:
            raise Problem("unauthenticated") from None
        used = [one for one in found.secrets if one.version == principal.secret_version]
        if not any(one.is_live(self.moment()) for one in used):
            raise Problem("unauthenticated")
        try:
            require_active(found, self.moment())
            self._require_network(scope, found)
        except Refused as refused:
            raise refused.problem from None
        if limits_of(found.key, found.user) != limits_of(principal.key, principal.user):
            raise Problem("unavailable", "The limits of the key or its owner changed during the call.")
        scopes = frozenset(found.key.scopes)
        require_scope(state["required_scope"], scopes)
        held = msgspec.structs.replace(principal, user=found.user, key=found.key, scopes=scopes)
        scope["user"] = held
        return held

    def _require_network(self, scope: Scope, found: Found) -> None:
        if found.key.allowed_networks:
            require_allowed(found.key, self.proxies.client(scope))

    async def _bearer(self, scope: Scope, credential: Bearer, keys: KeyLookup) -> Proved:
        secret = parse_secret(credential.token, self.prefix)
        if secret is None:
            raise IllFormed(
                "a bearer token that is no secret, or has a typo",
                advice.token_part(self.prefix).advice(credential.token),
            )
        digest = hash_secret(secret)
        found = await keys.by_secret(call_state(scope)["session"], digest)
        stored = next((one for one in found.secrets if same(one.secret_sha256, digest)), None)
        if stored is None:
            raise NoKeyMatch
        if not stored.is_live(self.moment()):
            raise Unauthenticated("a secret that was replaced, after its end")
        if found.key.mode != "bearer":
            log.warning(
                "the secret of the signing key %s was sent as a bearer: rotate it", found.key.access_key
            )
            raise Unauthenticated("a signing key's secret sent as a bearer")
        return Proved(found=found, secret=stored)

    async def _query_signed(self, scope: Scope, credential: QuerySigned, keys: KeyLookup) -> Proved:
        signature = query_signature.parse(credential.query_string, credential.secret_header)
        access_key = parse_access_key(signature.access_key, self.prefix)
        if access_key is None:
            raise IllFormed(
                "a key parameter that is no access key",
                advice.access_key_part("key", self.prefix).advice(signature.access_key),
            )
        with self._counting(scope, access_key):
            return await self._check_query(scope, signature, access_key, keys)

    async def _check_query(
        self, scope: Scope, signature: query_signature.QuerySignature, access_key: AccessKey, keys: KeyLookup
    ) -> Proved:
        found, stored = await self._find_signer(
            scope, access_key, keys, lambda secret: query_signature.proves(signature, secret)
        )
        raw_path = scope.get("raw_path") or scope["path"].encode()
        if not query_signature.covers(signature, scope["method"], raw_path):
            raise Unauthenticated("a signature of another method or path")
        if not query_signature.in_window(signature.timestamp, self.clock(), self.window_s):
            raise Unauthenticated("a timestamp outside the clock window")
        return Proved(
            found=found,
            secret=stored,
            digest=query_digest(signature, scope["method"]),
            missing=query_signature.missing_coverage(signature, scope["method"], has_body(scope)),
            claim=query_claim(signature, scope["method"]),
        )

    async def _message_signed(self, scope: Scope, keys: KeyLookup) -> Proved:
        values = message_signature.component_values(
            method=scope["method"],
            scheme=scope["scheme"],
            raw_path=scope.get("raw_path") or scope["path"].encode(),
            query_string=scope["query_string"],
            headers=scope["headers"],
            public_authority=self.public_authority,
        )
        signature = message_signature.parse(scope["headers"], values)
        if missing := message_signature.missing_coverage(signature, values, has_body(scope)):
            raise IllFormed(
                f"a message signature that does not cover {', '.join(missing)}",
                advice.of_coverage(missing, tuple(values)),
            )
        access_key = parse_access_key(signature.access_key, self.prefix)
        if access_key is None:
            raise IllFormed(
                "a keyid that is no access key",
                advice.access_key_part("keyid", self.prefix).advice(signature.access_key),
            )
        with self._counting(scope, access_key):
            found, stored = await self._find_signer(
                scope, access_key, keys, lambda secret: message_signature.proves(signature, secret)
            )
            if not message_signature.is_current(signature, self.clock(), self.window_s):
                raise Unauthenticated("a message signature outside the clock window, or past its expires")
        return Proved(
            found=found,
            secret=stored,
            digest=signature.content_sha256,
            claim=NonceClaim.of_nonce(access_key, signature.nonce, signature.created),
        )

    async def _find_signer(
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
    def _counting(self, scope: Scope, access_key: str) -> Iterator[None]:
        """Refuse a call from an address and access key with too many failures; otherwise count the call if it fails."""
        wait_s = self.failures.wait_s((self.proxies.client(scope), access_key)) if self.failures else 0
        if wait_s:
            raise Refused(Problem("too_many_failures", headers={"retry-after": str(wait_s)}))
        pair = self.proxies.client(scope), access_key
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


def query_claim(signature: query_signature.QuerySignature, method: str) -> NonceClaim | None:
    """Return the nonce that a signed query uses up; None when the call may be repeated."""
    if signature.nonce is not None:
        return NonceClaim.of_nonce(signature.access_key, signature.nonce, signature.timestamp)
    if method in SAFE_METHODS:
        return None
    return NonceClaim.of_mac(signature.access_key, signature.mac, signature.timestamp)


def query_digest(signature: query_signature.QuerySignature, method: str) -> bytes | None:
    """Return the digest that the body of a signed query must have; None when nothing covers it."""
    if signature.content_sha256 is not None:
        return bytes.fromhex(signature.content_sha256)
    # A signature of an unsafe call without a digest states that the body is empty.
    return None if method in SAFE_METHODS else message_signature.EMPTY_SHA256


def require_active(found: Found, now: datetime) -> None:
    """Raise `Refused` for a key that is revoked or expired, or whose owner is not active."""
    if found.key.status != "active":
        raise Refused(Problem("key_revoked"))
    if found.key.expires_at is not None and found.key.expires_at <= now:
        raise Refused(Problem("key_expired"))
    if found.user.status != "active":
        raise Refused(Problem("owner_inactive"))


def require_allowed(key: KeyRecord, address: Address | None) -> None:
    """Raise `Refused` for a key that is used from outside its allowed networks, or from an unknown address."""
    if address is None or not contains(read_networks(key.allowed_networks), address):
        shown = "an unknown address" if address is None else str(address)
        raise Refused(Problem("network_not_allowed", f"The key may not be used from {shown}."))


def limits_of(key: KeyRecord, user: UserRecord) -> tuple[Any, ...]:
    """Return all limits that apply to the calls of a key."""
    return key.limits, key.quota, user.limits, user.quota


def require_scope(required: str | None, scopes: frozenset[str]) -> None:
    """Raise a problem for a key without the scope that the route requires; None requires none."""
    if required is not None and not holds(scopes, required):
        raise scope_missing(required)


def has_body(scope: Scope) -> bool:
    """Return whether the body has any bytes.

    The body itself decides if it was read already; otherwise the headers do (RFC 9112, section 6).
    """
    read = call_state(scope).get("has_body")
    if read is not None:
        return read
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in scope["headers"]
    )


class KeyBackend(AuthenticationBackend):
    """The authenticator of one route: it verifies the caller and requires the route's scope."""

    def __init__(self, verifier: Verifier, scope: str | None) -> None:
        self.verifier = verifier
        self.required = scope

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Principal]:
        """Return the caller, or raise `Refused`."""
        state = call_state(conn.scope)
        state["is_private"] = True
        try:
            principal = await self.verifier.verify(conn.scope)
            state["required_scope"] = self.required
            require_scope(self.required, principal.scopes)
        except TwoCredentials as error:
            problem, reason = Problem("two_credentials", error.detail), error.reason
        except IllFormed as error:
            problem, reason = Problem("unauthenticated", error.detail), error.reason
        except Unauthenticated as error:
            problem, reason = Problem("unauthenticated"), error.reason
        except Refused as error:
            problem, reason = error.problem, error.problem.code
        except Problem as error:
            problem, reason = error, error.code
        else:
            return AuthCredentials(list(principal.key.scopes)), principal
        state["claimed_key"] = claimed = claimed_key(conn.scope, self.verifier.prefix)
        proved = state.get("proved_key", "none")
        log.info("refused: %s; claimed key: %s, proved key: %s", reason, claimed or "none", proved)
        if problem.kind.status == HTTPStatus.UNAUTHORIZED:
            problem.headers["www-authenticate"] = self.verifier.challenge
        raise Refused(problem)
