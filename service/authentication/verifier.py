"""The authenticator: pure checks in a fixed order, with one lookup between them.

The order is a security property: shape and size, choice of the credential, lookup, proof, clock. Up to
that point every failure is the same 401, and a client that fails too often is refused before the lookup.
The checks of key and owner, client address, coverage and scope follow.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
from starlette.types import Scope

from latchkey.service.authentication import lookup
from latchkey.service.authentication.bearer import verify_bearer
from latchkey.service.authentication.checks import (
    Refused,
    limits_of,
    require_active,
    require_allowed,
    require_scope,
)
from latchkey.service.authentication.failures import Failures
from latchkey.service.authentication.finder import KeyFinder
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.lookup import Found, KeyLookup
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.refusal import challenge
from latchkey.service.authentication.retirement import retirement_of
from latchkey.service.authentication.signed_message import verify_message
from latchkey.service.authentication.signed_query import verify_query
from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.wire import advice
from latchkey.service.authentication.wire.extraction import (
    Bearer,
    IllFormed,
    MessageSigned,
    QuerySigned,
    TwoCredentials,
    Unauthenticated,
    extract,
)
from latchkey.service.authentication.wire.imported_secrets import SecretFormat
from latchkey.service.clock import unix_s
from latchkey.service.methods import SAFE_METHODS
from latchkey.service.networks import Proxies
from latchkey.service.problems import Problem


class Verifier(KeyFinder):
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
        public_scheme: the scheme of the URLs that signatures cover; None uses that of each request.
        key_headers: the names of headers that may carry the secret of a bearer key.
        clock: returns unix seconds.
        imported_formats: the formats of bearer secrets that other systems made.
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
        public_scheme: str | None = None,
        key_headers: Iterable[str] = (),
        clock: Callable[[], float] = unix_s,
        imported_formats: tuple[SecretFormat, ...] = (),
    ) -> None:
        super().__init__(
            keyring=keyring,
            prefix=prefix,
            window_s=window_s,
            proxies=proxies,
            failures=failures,
            public_authority=public_authority,
            public_scheme=public_scheme,
            clock=clock,
            imported_formats=imported_formats,
        )
        self.keys = keys
        self.primary: KeyLookup = lookup
        self.note_use = note_use
        self.note_old_use = note_old_use
        self.key_headers = frozenset(name.lower().encode() for name in key_headers)
        self.challenge = challenge(key_headers)

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
                proved = await verify_bearer(self, scope, credential, keys)
            case QuerySigned():
                proved = await verify_query(self, scope, credential, keys)
            case MessageSigned():
                proved = await verify_message(self, scope, keys)
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
            scopes=frozenset(found.key.all_scopes),
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
            return self.formats.parse(credential.token) is None
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
        scopes = frozenset(found.key.all_scopes)
        require_scope(state["required_scope"], scopes)
        held = msgspec.structs.replace(principal, user=found.user, key=found.key, scopes=scopes)
        scope["user"] = held
        return held

    def _require_network(self, scope: Scope, found: Found) -> None:
        if found.key.allowed_networks:
            require_allowed(found.key, self.proxies.client(scope))
