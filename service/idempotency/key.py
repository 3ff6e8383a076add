"""Idempotency keys: how the header is parsed, and which calls count as the same call."""

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.types import Scope

from latchkey.service.authentication.wire.extraction import RESERVED_PARAMETERS
from latchkey.service.authentication.wire.structured_fields import string
from latchkey.service.operation import Operation
from latchkey.service.problems import Problem

HEADER = b"idempotency-key"
LONGEST_KEY = 255  # characters, without the quotes

# Visible ASCII that cannot be mistaken for quotes, escapes, parameters, or two values in one.
BARE_CHARACTER = r"[!#-+\--:<-\[\]-~]"
_BARE = re.compile(f"{BARE_CHARACTER}+")


class CallIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The idempotency key of one call, and a fingerprint of the call; both are SHA-256."""

    id: bytes
    """The hash of caller, operation and idempotency key."""
    fingerprint: bytes
    """The hash of body and query."""


async def key_of(operation: Operation, request: Request) -> CallIdentity | None:
    """Return the identity of a call that may change something; None when it has no idempotency key.

    Raises:
        Problem: 400 `invalid_idempotency_key`; also when the operation does not support idempotency keys, because
            ignoring the header would promise the client a protection that it does not get.
    """
    text = read_header(request.scope["headers"])
    if text is None:
        return None
    if not operation.idempotent:
        raise Problem("invalid_idempotency_key", "This operation does not support Idempotency-Key.")
    pairs = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True)
    if request.user.signed_by_query:
        # Each retry is signed again: the parameters of its signature are not part of the call.
        pairs = [(name, value) for name, value in pairs if name not in RESERVED_PARAMETERS]
    query = (part.encode() for pair in pairs for part in pair)
    return CallIdentity(id=identify(request.scope, text), fingerprint=digest(await request.body(), *query))


def read_header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the idempotency key in the headers of an ASGI scope; None when there is none.

    It is a string of Structured Fields (RFC 8941, section 3.3.3), `"8e03978e"`, as the draft requires, or the same
    text without the quotes, which many clients send.

    Raises:
        Problem: 400 `invalid_idempotency_key`: there are two headers, or one of another form or length.
    """
    found = [value for name, value in headers if name == HEADER]
    if not found:
        return None
    if len(found) > 1:
        raise Problem("invalid_idempotency_key", "There is more than one Idempotency-Key.")
    text = found[0].strip(b" \t").decode("latin-1")
    if not _BARE.fullmatch(text):
        try:
            text = string(text)
        except ValueError:
            raise Problem(
                "invalid_idempotency_key",
                'An Idempotency-Key must be a string in quotes, such as "8e03978e", or visible ASCII without '
                "quotes, backslashes, commas or semicolons.",
            ) from None
    if not 1 <= len(text) <= LONGEST_KEY:
        raise Problem(
            "invalid_idempotency_key", f"An Idempotency-Key must have 1 to {LONGEST_KEY} characters."
        )
    return text


def identify(scope: Scope, text: str) -> bytes:
    """Return the hash of access key, method, path as received, and idempotency key."""
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    access_key: str = scope["user"].key.access_key
    return digest(access_key.encode(), scope["method"].encode(), raw_path, text.encode())


def digest(*parts: bytes) -> bytes:
    """Return the hash of the parts, each preceded by its length, so that two different lists never hash the same text."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.digest()
