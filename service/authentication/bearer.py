"""The verification of a bearer token: its shape, its key, and the time in which its secret is valid."""

import logging

from starlette.types import Scope

from latchkey.service.authentication.finder import ANY_BEARER, KeyFinder, Proved
from latchkey.service.authentication.lookup import KeyLookup, NoKeyMatch
from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.wire import advice
from latchkey.service.authentication.wire.credentials import hash_secret, same
from latchkey.service.authentication.wire.extraction import Bearer, IllFormed, Unauthenticated

log = logging.getLogger("latchkey.authentication")


async def verify_bearer(finder: KeyFinder, scope: Scope, credential: Bearer, keys: KeyLookup) -> Proved:
    """Return the key whose secret is the token.

    Raises:
        Unauthenticated: the token is not the live secret of a bearer key.
        Refused: there were too many failures before.
    """
    with finder.counting(scope, ANY_BEARER):
        secret = finder.formats.parse(credential.token)
        if secret is None:
            raise IllFormed(
                "a bearer token that is no secret, or has a typo",
                advice.token_part(finder.prefix).advice(credential.token),
            )
        digest = hash_secret(secret)
        found = await keys.by_secret(call_state(scope)["session"], digest)
        call_state(scope)["key_id"] = found.key_id
        stored = next((one for one in found.secrets if same(one.secret_sha256, digest)), None)
        if stored is None:
            raise NoKeyMatch
        if not stored.is_live(finder.moment()):
            raise Unauthenticated("a secret that was replaced, after its end")
        if found.key.mode != "bearer":
            log.warning(
                "the secret of the signing key %s was sent as a bearer: rotate it", found.key.access_key
            )
            raise Unauthenticated("a signing key's secret sent as a bearer")
        return Proved(found=found, secret=stored)
