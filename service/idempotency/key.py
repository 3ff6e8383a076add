"""Idempotency keys: how the header is read, and what makes two calls the same one."""

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

# Visible ASCII that cannot be mistaken for quotes, for escapes, for parameters, or for two values in one.
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]+")


class CallIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The key of one call, and the call that it was sent with; both are SHA-256."""

    id: bytes
    """Who calls what with which key."""
    fingerprint: bytes
    """What was sent."""


async def key_of(operation: Operation, request: Request) -> CallIdentity | None:
    """Read the key of a call that may change something; None when it has none.

    Raises:
        Problem: 400 `invalid_idempotency_key`; also where the operation takes none, which would else be a
            promise that nobody keeps.
    """
    text = read_header(request.scope["headers"])
    if text is None:
        return None
    if not operation.idempotent:
        raise Problem("invalid_idempotency_key", "This operation takes no Idempotency-Key.")
    pairs = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True)
    if request.user.signed_by_query:
        # Each retry is signed anew: the names of its signature are no part of what is asked.
        pairs = [(name, value) for name, value in pairs if name not in RESERVED_PARAMETERS]
    query = (part.encode() for pair in pairs for part in pair)
    return CallIdentity(id=identify(request.scope, text), fingerprint=digest(await request.body(), *query))


def read_header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the key that the headers of an ASGI scope carry; None when there is none.

    It is a string of Structured Fields (RFC 8941, section 3.3.3), `"8e03978e"`, as the draft says, or the same
    text without the quotes, which many clients send.

    Raises:
        Problem: 400 `invalid_idempotency_key`: there are two, or one of another form or length.
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
                'An Idempotency-Key is a string in quotes, as in "8e03978e", or visible ASCII without '
                "quotes, backslashes, commas and semicolons.",
            ) from None
    if not 1 <= len(text) <= LONGEST_KEY:
        raise Problem("invalid_idempotency_key", f"An Idempotency-Key has 1 to {LONGEST_KEY} characters.")
    return text


def identify(scope: Scope, text: str) -> bytes:
    """Hash who calls what with which key: the access key, the method, the path as received, the key."""
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    access_key: str = scope["user"].key.access_key
    return digest(access_key.encode(), scope["method"].encode(), raw_path, text.encode())


def digest(*parts: bytes) -> bytes:
    """Hash the parts, each after its length: no two lists of parts make the same text."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.digest()
