"""Verify a credential for another service: the authenticator's checks, with its result as a value.

Another service passes the secret or the signed request that it received, and gets its caller. Each verification uses
the current state of the primary database, and charges the limits of the verified key with the same counters as a call.
"""

import copy
import hmac
import logging
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import Scope

from latchkey.service import shapes
from latchkey.service.authentication.checks import Refused, require_scope
from latchkey.service.authentication.failures import Failures
from latchkey.service.authentication.lookup import BY_ACCESS_KEY, BY_SECRET, Found, NoKeyMatch, found_in
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.verifier import Verifier
from latchkey.service.authentication.wire.extraction import IllFormed, TwoCredentials, Unauthenticated
from latchkey.service.authentication.wire.message_signature import EMPTY_SHA256
from latchkey.service.database.session import RequestSession
from latchkey.service.limits.call import limit_state
from latchkey.service.limits.enforcement import credits_in
from latchkey.service.networks import Proxies
from latchkey.service.parts import Parts
from latchkey.service.problems import Problem
from latchkey.service.usage.counting import joined_tags
from latchkey.service.usage.series import VERIFIED, Series

log = logging.getLogger("latchkey.verification")

VALID = "valid"


class Reach:
    """A lookup on the primary, of one owner's keys or of all: a key outside is treated like one that does not exist.

    Args:
        primary: an engine in AUTOCOMMIT mode, so that a lookup is one round trip.
        owner_id: the owner of the keys that may be found; None finds every key.
    """

    def __init__(self, primary: AsyncEngine, owner_id: int | None) -> None:
        self._primary = primary
        self._owner_id = owner_id
        self.found: Found | None = None
        """The key that was found last; nothing about it is proved yet."""

    async def by_secret(self, session: RequestSession, secret_sha256: bytes, /) -> Found:  # noqa: ARG002
        """Return the key that has this secret."""
        return self._within(found_in(await BY_SECRET.run(self._primary, {"secret_sha256": secret_sha256})))

    async def by_access_key(self, session: RequestSession, access_key: str, /) -> Found:  # noqa: ARG002
        """Return the key with this access key."""
        return self._within(found_in(await BY_ACCESS_KEY.run(self._primary, {"access_key": access_key})))

    def _within(self, found: Found) -> Found:
        if self._owner_id not in {None, found.user.id}:
            raise NoKeyMatch
        self.found = found
        return found


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What another service asks about a request that it received."""

    scope: Scope
    """An ASGI scope with the parts that a signature covers, and the client address."""
    content_sha256: bytes
    """The SHA-256 of the body that the service received."""
    scopes: Sequence[str]
    """All of them must be held."""
    cost: int
    charge: bool
    """Whether to charge the limits and use up the nonce."""
    tags: Sequence[str]
    """For the log, and for the usage of the verified key."""


async def verify(
    parts: Parts, session: RequestSession, asked: Verification, *, owner_id: int | None
) -> shapes.Verified:
    """Verify one credential; a refusal is a result, and not an error.

    Args:
        parts: of the application.
        session: of the call that asks.
        asked: the credential, and what the caller needs.
        owner_id: keys of other owners are answered like unknown keys; None reaches every key.

    Raises:
        Problem, DBAPIError: the database cannot be reached.
    """
    reach = Reach(parts.db.reader, owner_id)
    scope = asked.scope
    scope["state"] = {"session": session, "has_body": asked.content_sha256 != EMPTY_SHA256}
    state = limit_state(scope)
    problem: Problem | None = None
    try:
        principal = await verifier_of(parts.verifier, reach).verify(scope)
        problem = await checked(parts, session, asked, principal)
    except (IllFormed, TwoCredentials) as error:
        code = "unauthenticated" if isinstance(error, IllFormed) else "two_credentials"
        problem = Problem(code, error.detail)
    except Unauthenticated as error:
        log.info("not verified: %s", error.reason)
        problem = Problem("unauthenticated")
    except Refused as error:
        problem = error.problem
        if problem.kind.status >= 500:  # noqa: PLR2004 - RFC 9110, section 15.6
            raise problem from None
    if asked.charge and "key_id" in state:
        series = Series(
            VERIFIED,
            HTTPStatus.OK if problem is None else problem.kind.status,
            "" if problem is None else problem.code,
            joined_tags(asked.tags),
        )
        parts.usage.note(state["key_id"], series, state.get("units", 0))
    # Only a key whose secret was proved is shown.
    found = reach.found if "proved_key" in state else None
    figures = state.get("figures", ())
    log.info(
        "verified: %s; key: %s, tags: %s",
        VALID if problem is None else problem.code,
        "none" if found is None else found.key.access_key,
        ", ".join(asked.tags) or "none",
    )
    return shapes.Verified(
        valid=problem is None,
        code=VALID if problem is None else problem.code,
        detail=None if problem is None else problem.detail,
        retry_after_s=None if problem is None else retry_after(problem),
        access_key=None if found is None else found.key.access_key,
        name=None if found is None else found.key.name,
        owner=None if found is None else owner_of(found),
        environment=None if found is None else parts.key_rules.issuer.environment_of(found.key),
        external_id=None if found is None else found.key.external_id,
        meta={} if found is None else found.key.meta,
        scopes=() if found is None else found.key.all_scopes,
        roles=() if found is None else found.key.roles,
        expires_at=None if found is None else found.key.expires_at,
        limits=tuple(
            shapes.LimitState(
                name=one.name,
                limit=one.limit,
                window_s=one.window_s,
                remaining=one.remaining,
                resets_in_s=one.eases_in_s,
            )
            for one in figures
            if one.credits is None
        ),
        credits=credits_in(figures),
    )


def owner_of(found: Found) -> shapes.VerifiedOwner:
    """Return the owner of a key in the form of the response."""
    user = found.user
    return shapes.VerifiedOwner(
        id=user.id, name=user.name, status=user.status, external_id=user.external_id, meta=user.meta
    )


def verifier_of(verifier: Verifier, reach: Reach) -> Verifier:
    """Return a verifier of calls to another service.

    It looks keys up in `reach` alone. Scheme and host of the request are the other service's own. Its client address is the one
    that was passed. Failures are not counted: they are the clients' failures, and not those of the service that asks.
    """
    found = copy.copy(verifier)
    found.keys = found.primary = reach
    found.public_authority = found.public_scheme = None
    found.proxies = Proxies()
    found.failures = Failures(0)
    return found


async def checked(
    parts: Parts, session: RequestSession, asked: Verification, principal: Principal
) -> Problem | None:
    """Check what follows the authentication, in the order of a call, and charge it last."""
    try:
        for one in asked.scopes:
            require_scope(one, principal.scopes)
    except Problem as problem:
        return problem
    digest = principal.content_sha256
    if digest is not None and not hmac.compare_digest(digest, asked.content_sha256):
        return Problem("digest_mismatch")
    # Without the headers of the other service's call: its Idempotency-Key is not one of this service.
    call: Scope = {**asked.scope, "headers": [], "user": principal}
    if not asked.charge:
        if principal.claim is not None and await parts.replays.nonces.is_used(session, principal.claim):
            return Problem("replayed")
        return await parts.limits.outlook(call, cost=asked.cost)
    if principal.claim is not None:
        exhausted = await parts.limits.exhausted(call, cost=asked.cost)
        if exhausted is not None or not await parts.replays.reserve(principal.claim):
            return exhausted or Problem("replayed")
    return await parts.limits.refusal(call, cost=asked.cost)


def retry_after(problem: Problem) -> int | None:
    """Return the seconds after which a refused call fits."""
    seconds = problem.headers.get("retry-after")
    return None if seconds is None else int(seconds)
