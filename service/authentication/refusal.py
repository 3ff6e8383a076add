"""The details of a refusal: the challenge for the sender, and the claimed key for the log."""

import re
import secrets
from collections.abc import Iterable

from starlette.types import Scope

from latchkey.service.authentication.wire import message_signature
from latchkey.service.problems import CHALLENGE

LONGEST_CLAIM_BYTES = 8 * 1024  # of the query or header in which the claimed key is searched


def challenge(key_headers: Iterable[str]) -> str:
    """Return the value of `WWW-Authenticate`: the schemes of credentials that are accepted."""
    return ", ".join([CHALLENGE, *(f'ApiKey realm="latchkey", header="{name}"' for name in key_headers)])


def accept_signature(scope: Scope, *, has_body: bool) -> str:
    """Return the value of `Accept-Signature` for a refused request, with a nonce that nobody has used."""
    return message_signature.requested(scope["headers"], has_body=has_body, nonce=secrets.token_urlsafe(16))


def claimed_key(scope: Scope, prefix: str) -> str | None:
    """Return the access key that a refused request names; nothing proves that the sender holds it."""
    name = re.escape(prefix) + "a_[0-9A-Za-z]{22}"
    query = scope["query_string"][:LONGEST_CLAIM_BYTES].decode("latin-1")
    inputs = b",".join(value for field, value in scope["headers"] if field == b"signature-input")
    found = re.search(rf"(?:^|&)key=({name})(?:&|$)", query) or re.search(
        rf';keyid="({name})"', inputs[:LONGEST_CLAIM_BYTES].decode("latin-1")
    )
    return found[1] if found else None
