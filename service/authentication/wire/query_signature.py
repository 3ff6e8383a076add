"""The query form of a signed request: signing, and verifying in steps.

    GET /v1/me?key=lka_…&timestamp=1700000000
    secret: base64(HMAC-SHA256(secret, query string))

Everything in the query is signed, so four more parameters bind the parts outside it:
`method`, `path`, `content_sha256` and `nonce`.

The steps are separate functions because their order is a security property: `parse`, then the lookup, then `proves`,
`covers` and `in_window`. Up to that point every failure looks the same to the client; `missing_coverage` comes later.
"""

import base64
import hashlib
import hmac
import re
from urllib.parse import quote, urlencode

import msgspec
from starlette.datastructures import QueryParams

from latchkey.service.authentication.wire import advice
from latchkey.service.authentication.wire.credentials import AccessKey, Secret, decode_base64, same
from latchkey.service.authentication.wire.extraction import RESERVED_PARAMETERS, IllFormed
from latchkey.service.methods import SAFE_METHODS

_SHAPES = {
    # The rest of the format of an access key depends on the prefix, which is not known here.
    "key": re.compile(r"[!-~]+"),
    "timestamp": re.compile(r"[0-9]{1,12}"),
    "nonce": re.compile(r"[A-Za-z0-9_-]{16,64}"),
    "method": re.compile(r"[A-Z-]{1,32}"),
    # Printable ASCII: in a raw path everything else is percent-encoded.
    "path": re.compile(r"/[!-~]*"),
    "content_sha256": re.compile(r"[0-9a-f]{64}"),
}
_MAC_BYTES = 32


class QuerySignature(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed signed query; nothing of it is verified yet."""

    access_key: str
    timestamp: int
    """Unix seconds."""
    nonce: str | None
    method: str | None
    path: str | None
    """The raw path, after one decoding of the query: `%252F` in the query is `%2F` here."""
    content_sha256: str | None
    signed: tuple[bytes, bytes]
    """The two texts that the client may have signed: the query as received, and re-encoded."""
    mac: bytes

    def __repr__(self) -> str:
        # A client may have sent its secret in place of its access key.
        return f"QuerySignature(timestamp={self.timestamp})"


def parse(query_string: bytes, secret_header: bytes) -> QuerySignature:
    """Parse a signed query, or raise IllFormed.

    The query is decoded exactly as `request.query_params` decodes it, so the checked values are those that endpoints see.
    Escapes that are not UTF-8 become U+FFFD, which no reserved parameter may contain.
    """
    query = QueryParams(query_string)
    given = [(name, value) for name, value in query.multi_items() if name in RESERVED_PARAMETERS]
    values = dict(given)
    if len(values) < len(given):
        twice = sorted({name for name, _ in given if sum(name == one for one, _ in given) > 1})
        raise IllFormed(f"the parameter {', '.join(twice)} more than once", "Each may appear once.")
    for name, value in values.items():
        if not _SHAPES[name].fullmatch(value):
            raise IllFormed(f"an ill-formed {name} parameter", advice.QUERY[name].advice(value))
    for name in ("key", "timestamp"):
        if name not in values:
            raise IllFormed(f"a signed query without the parameter {name}", advice.QUERY[name].expected)

    proof = secret_header.decode("latin-1")
    mac = decode_base64(proof)
    if mac is None or len(mac) != _MAC_BYTES:
        raise IllFormed("an ill-formed secret header", advice.MAC_OF_QUERY.advice(proof))
    return QuerySignature(
        access_key=values["key"],
        timestamp=int(values["timestamp"]),
        nonce=values.get("nonce"),
        method=values.get("method"),
        path=values.get("path"),
        content_sha256=values.get("content_sha256"),
        signed=(query_string, str(query).encode()),
        mac=mac,
    )


def proves(signature: QuerySignature, secret: Secret) -> bool:
    """Return whether the holder of the secret signed the query, as received or re-encoded.

    Both MACs are always computed and compared, so the cost does not depend on which text was signed.
    """
    received, reencoded = (same(_mac(secret, text), signature.mac) for text in signature.signed)
    return received or reencoded


def covers(signature: QuerySignature, method: str, raw_path: bytes) -> bool:
    """Return whether the signed method and path, where present, match the request.

    `raw_path` is the one of the ASGI scope: the bytes as received, without the query.
    """
    return (signature.method is None or signature.method == method) and (
        signature.path is None or signature.path.encode() == raw_path
    )


def in_window(timestamp: int, now: float, window_s: float) -> bool:
    """Return whether a timestamp is at most `window_s` seconds away from now, in either direction."""
    return abs(now - timestamp) <= window_s


def missing_coverage(signature: QuerySignature, method: str, has_body: bool) -> tuple[str, ...]:
    """Return the parameters that a request of this method must be signed with, and is not.

    Safe methods need none; any other method needs `method`, `path` and, with a body, `content_sha256`.
    """
    if method in SAFE_METHODS:
        return ()
    needed = ("method", "path", "content_sha256") if has_body else ("method", "path")
    return tuple(name for name in needed if getattr(signature, name) is None)


def sign_query(
    secret: Secret,
    query: str,
    access_key: AccessKey,
    now: float,
    *,
    method: str | None = None,
    path: str | None = None,
    body: bytes | None = None,
    nonce: str | None = None,
) -> tuple[str, str]:
    """Sign a call, and return its query string and the value of its `secret` header.

    Args:
        secret: the whole secret, including `lks_`.
        query: the parameters of the call, already encoded; kept byte for byte. Empty when there are none.
        access_key: the access key.
        now: unix seconds; fractions of a second are dropped.
        method: as it will be sent, in upper case. None leaves it unsigned, for safe methods only.
        path: the raw path as it will be sent, with its percent escapes. None leaves it unsigned.
        body: the bytes that will be sent. None leaves the body of a safe method unsigned, and means an empty body for
            any other method.
        nonce: 16 to 64 of `[A-Za-z0-9_-]`; None sends none.

    Raises:
        ValueError: the query is not ASCII or has a reserved parameter, or an unsafe method has no path.
    """
    if not query.isascii():
        raise ValueError("The query must be percent-encoded before it is signed.")
    taken = sorted(RESERVED_PARAMETERS.intersection(QueryParams(query)))
    if taken:
        raise ValueError(f"The signature sets these parameters itself: {', '.join(taken)}.")
    if method is not None and method not in SAFE_METHODS:
        if path is None:
            raise ValueError(f"A {method} call must be signed with its path.")
        body = body or b""

    signed = {
        "key": access_key,
        "timestamp": str(int(now)),
        "nonce": nonce,
        "method": method,
        "path": path,
        "content_sha256": None if body is None else hashlib.sha256(body).hexdigest(),
    }
    own = urlencode(
        {name: value for name, value in signed.items() if value is not None}, quote_via=quote, safe=""
    )
    query_string = f"{own}&{query}" if query else own
    return query_string, base64.b64encode(_mac(secret, query_string.encode())).decode()


def _mac(secret: Secret, text: bytes) -> bytes:
    return hmac.digest(secret.encode(), text, "sha256")
