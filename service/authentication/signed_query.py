"""The verification of a signed query: its shape, its key, its signature, its target and its time."""

from starlette.types import Scope

from latchkey.service.authentication.checks import has_body
from latchkey.service.authentication.finder import KeyFinder, Proved
from latchkey.service.authentication.lookup import KeyLookup
from latchkey.service.authentication.nonces import NonceClaim
from latchkey.service.authentication.wire import advice, message_signature, query_signature
from latchkey.service.authentication.wire.credentials import AccessKey, parse_access_key
from latchkey.service.authentication.wire.extraction import IllFormed, QuerySigned, Unauthenticated
from latchkey.service.methods import SAFE_METHODS


async def verify_query(finder: KeyFinder, scope: Scope, credential: QuerySigned, keys: KeyLookup) -> Proved:
    """Return the key that signed the query.

    Raises:
        Unauthenticated: the signature is ill-formed, of another call, or not proved by a live secret.
        Refused: there were too many failures before, or a stored secret cannot be decrypted.
    """
    signature = query_signature.parse(credential.query_string, credential.secret_header)
    access_key = parse_access_key(signature.access_key, finder.prefix)
    if access_key is None:
        raise IllFormed(
            "a key parameter that is no access key",
            advice.access_key_part("key", finder.prefix).advice(signature.access_key),
        )
    with finder.counting(scope, access_key):
        return await _check_query(finder, scope, signature, access_key, keys)


async def _check_query(
    finder: KeyFinder,
    scope: Scope,
    signature: query_signature.QuerySignature,
    access_key: AccessKey,
    keys: KeyLookup,
) -> Proved:
    found, stored = await finder.find_signer(
        scope, access_key, keys, lambda secret: query_signature.proves(signature, secret)
    )
    raw_path = scope.get("raw_path") or scope["path"].encode()
    if not query_signature.covers(signature, scope["method"], raw_path):
        raise Unauthenticated("a signature of another method or path")
    if not query_signature.in_window(signature.timestamp, finder.clock(), finder.window_s):
        raise Unauthenticated("a timestamp outside the clock window")
    return Proved(
        found=found,
        secret=stored,
        digest=query_digest(signature, scope["method"]),
        missing=query_signature.missing_coverage(signature, scope["method"], has_body(scope)),
        claim=query_claim(signature, scope["method"]),
    )


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
