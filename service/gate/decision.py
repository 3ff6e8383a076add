"""The decision of the gate: the checks of a call to this service, made for a request that a proxy received."""

import copy
import hashlib
import hmac
import logging
from collections.abc import Callable
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import Scope

from latchkey.middleware.excerpt import excerpt
from latchkey.service.authentication.backend import KeyBackend
from latchkey.service.authentication.checks import Refused
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.records import environment_of
from latchkey.service.authentication.replay import Replays
from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.verifier import Verifier
from latchkey.service.gate.in_force import RulesInForce
from latchkey.service.gate.original import OriginalRequest
from latchkey.service.gate.rules import Rule
from latchkey.service.limits.enforcement import Limits
from latchkey.service.networks import contains, parse_address
from latchkey.service.problems import Problem

log = logging.getLogger("latchkey.gate")

IDENTITY = (
    "x-latchkey-owner",
    "x-latchkey-key",
    "x-latchkey-external-id",
    "x-latchkey-owner-external-id",
    "x-latchkey-scopes",
    "x-latchkey-environment",
    "x-latchkey-content-sha256",
)
"""The headers of a permission. All of them are always sent, so that a proxy replaces those of the client."""


class Gate:
    """Decides about requests that proxies received.

    Args:
        verifier: of the application; keys come from the same cache, and failures count as those of the client.
        limits: charge a request to its key and owner.
        replays: the nonces that were used.
        rules: which request needs which scope.
        environments: the names of the environments; a key without one is in the first.
    """

    def __init__(
        self,
        *,
        verifier: Verifier,
        limits: Limits,
        replays: Replays,
        rules: RulesInForce,
        environments: tuple[str, ...],
    ) -> None:
        self.environments = environments
        self.verifier = verifier
        self.limits = limits
        self.replays = replays
        self.rules = rules

    def trusts(self, scope: Scope) -> bool:
        """Return whether a request to the gate comes from a trusted proxy."""
        peer = scope["client"][0] if scope.get("client") else ""
        address = parse_address(peer.partition("%")[0])
        return address is not None and contains(self.verifier.proxies.trusted, address)

    async def permit(
        self, scope: Scope, describe: Callable[[Scope], OriginalRequest], body: bytes
    ) -> dict[str, str]:
        """Return the headers that identify the caller of the original request; they are empty for a public request.

        The caller, the figures of the limits and the name of the key are left in the state of `scope`, for the response and
        the log.

        Args:
            scope: of the request to the gate.
            describe: returns the original request of a request to the gate, or raises a problem.
            body: what the proxy passed on of the original body; empty if it passes none on.

        Raises:
            Problem: the request is refused.
        """
        call_state(scope)["is_private"] = True
        if not self.trusts(scope):
            raise Problem("gate_caller_refused")
        original = describe(scope)
        rules = await self.rules.current()
        rule = rules.find(original.method, original.scheme, original.host, original.segments)
        if rule is None:
            log.info("refused: no rule fits %s %s%s", *shown(original))
            raise Problem("no_gate_rule")
        call_state(scope)["counted_as"] = rule.counted_as
        if rule.text.public:
            return dict.fromkeys(IDENTITY, "")
        call = call_of(scope, original, has_body=bool(body) or original.has_body)
        try:
            principal = await self._permit(call, rule, body)
        except Problem as problem:
            log.info("refused: %s; %s, %s %s%s", problem.code, rule.label, *shown(original))
            raise
        scope["user"] = principal
        return identity_of(principal, environment_of(principal.key, self.environments))

    async def _permit(self, call: Scope, rule: Rule, body: bytes) -> Principal:
        principal = await self._authenticate(call, rule.text.scope)
        digest, cost = principal.content_sha256, rule.text.cost
        if body and digest is not None and not hmac.compare_digest(hashlib.sha256(body).digest(), digest):
            raise Problem("digest_mismatch")
        # Without the headers of the other service's call: its Idempotency-Key is not one of this service.
        charged: Scope = {**call, "headers": [], "user": principal}
        problem = await self.limits.exhausted(charged, cost=cost) if cost else None
        problem = problem or await self.replays.refusal(charged)
        if cost:
            problem = problem or await self.limits.refusal(charged, cost=cost)
        if problem is not None:
            raise problem
        return principal

    async def _authenticate(self, call: Scope, wanted: str | None) -> Principal:
        verifier = self.verifier
        if verifier.public_authority is not None:
            verifier = copy.copy(verifier)  # the URL of the request is the other service's own
            verifier.public_authority = verifier.public_scheme = None
        try:
            _, principal = await KeyBackend(verifier, wanted).authenticate(HTTPConnection(call))
        except Refused as refused:
            raise refused.problem from None
        return principal


def call_of(scope: Scope, original: OriginalRequest, *, has_body: bool) -> Scope:
    """Return the ASGI scope of the original request, with the peer and the state of the request to the gate."""
    call_state(scope)["has_body"] = has_body
    return {
        **scope,
        "method": original.method,
        "scheme": original.scheme,
        "path": original.raw_path,
        "raw_path": original.raw_path.encode("latin-1"),
        "query_string": original.query.encode("latin-1"),
        "headers": original.headers,
    }


def identity_of(principal: Principal, environment: str) -> dict[str, str]:
    """Return the headers that identify a caller."""
    digest = principal.content_sha256
    values = (
        str(principal.user.id),
        principal.key.access_key,
        principal.key.external_id or "",
        principal.user.external_id or "",
        " ".join(principal.key.all_scopes),
        environment,
        "" if digest is None else digest.hex(),
    )
    return dict(zip(IDENTITY, values, strict=True))


def shown(original: OriginalRequest) -> tuple[str, str, str]:
    """Return method, host and path of a request for a log line."""
    return original.method, original.host.name, excerpt(quote("/" + "/".join(original.segments)))
