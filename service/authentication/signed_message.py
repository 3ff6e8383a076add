"""The verification of a message signature (RFC 9421): its shape, its coverage, its key, its signature and its time."""

from starlette.types import Scope

from latchkey.service.authentication.checks import has_body
from latchkey.service.authentication.finder import KeyFinder, Proved
from latchkey.service.authentication.lookup import KeyLookup
from latchkey.service.authentication.nonces import NonceClaim
from latchkey.service.authentication.wire import advice, message_signature
from latchkey.service.authentication.wire.credentials import parse_access_key
from latchkey.service.authentication.wire.extraction import IllFormed, Unauthenticated


async def verify_message(finder: KeyFinder, scope: Scope, keys: KeyLookup) -> Proved:
    """Return the key that signed the message.

    Raises:
        Unauthenticated: the signature is ill-formed, covers too little, or is not proved by a live secret.
        Refused: there were too many failures before, or a stored secret cannot be decrypted.
    """
    scheme = finder.public_scheme or scope["scheme"]
    values = message_signature.component_values(
        method=scope["method"],
        scheme=scheme,
        raw_path=scope.get("raw_path") or scope["path"].encode(),
        query_string=scope["query_string"],
        headers=scope["headers"],
        public_authority=finder.public_authority,
    )
    target = message_signature.target_uri(values, scheme)
    signature = message_signature.parse(scope["headers"], values, target=target)
    if missing := message_signature.missing_coverage(signature, values, has_body(scope)):
        raise IllFormed(
            f"a message signature that does not cover {', '.join(missing)}",
            advice.of_coverage(missing, tuple(values)),
        )
    access_key = parse_access_key(signature.access_key, finder.prefix)
    if access_key is None:
        raise IllFormed(
            "a keyid that is no access key",
            advice.access_key_part("keyid", finder.prefix).advice(signature.access_key),
        )
    with finder.counting(scope, access_key):
        found, stored = await finder.find_signer(
            scope, access_key, keys, lambda secret: message_signature.proves(signature, secret)
        )
        if not message_signature.is_current(signature, finder.clock(), finder.window_s):
            raise Unauthenticated("a message signature outside the clock window, or past its expires")
    return Proved(
        found=found,
        secret=stored,
        digest=signature.content_sha256,
        claim=NonceClaim.of_nonce(access_key, signature.nonce, signature.created),
    )
