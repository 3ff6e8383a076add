"""Determine which credential a request carries.

It is determined from the headers and the query string alone, before any lookup:

- `Authorization: Bearer …` is a bearer credential, and so is a header that the operator names for it;
- `key` in the query or a `secret` header is a signed query;
- `Signature` or `Signature-Input` is a signed message (RFC 9421).

A request with two kinds raises TwoCredentials, even if one of them is ill-formed. A request with one kind twice, or in
a wrong shape, raises Unauthenticated. Several lines of `Signature` count as one field.
"""

import re
from collections.abc import Iterable

import msgspec

from latchkey.service.authentication.wire import advice

RESERVED_PARAMETERS = frozenset({"key", "timestamp", "nonce", "method", "path", "content_sha256"})
"""The query parameters that belong to the signature; no route may declare one of them."""

# A secret has about 60 characters; the rest allows for a long prefix.
_AUTHORIZATION_LIMIT_BYTES = 512
# The limit that servers commonly set for a request line. The query of a bearer call is only searched, and has no
# limit here.
_SIGNED_QUERY_LIMIT_BYTES = 8 * 1024

# RFC 6750, section 2.1, and RFC 9110, section 11.1: the scheme is case-insensitive.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
_BEARER = re.compile(rb"(?i:bearer) +(" + _TOKEN.pattern + rb")")

# Every spelling that decodes to the name `key`. The cost of a search is the same for any query; decoding 64 kB is
# more expensive.
_KEY_PARAMETER = re.compile(rb"(?:\A|&)(?:k|%6[bB])(?:e|%65)(?:y|%79)(?=[=&]|\Z)")

# These may appear in several lines, which form one field (RFC 9651, section 4.2); `message_signature` parses them.
_DICTIONARIES = frozenset({b"signature", b"signature-input"})
_CREDENTIAL_HEADERS = (b"authorization", b"secret", b"signature", b"signature-input")


class CredentialError(Exception):
    """The credentials of a request are refused.

    `reason` is for the log alone, and never contains a part of the request.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = f"The request has {reason}."


class Unauthenticated(CredentialError):  # noqa: N818 - a verdict on a request, and the name of its problem
    """Nothing proves the sender's identity; the client gets the same response for every reason."""


class IllFormed(Unauthenticated):
    """The credential has a wrong shape, which is visible without any lookup; the client learns the fault.

    It must be raised before the key is looked up. Otherwise the response could reveal whether the key exists.

    Args:
        reason: for the log, as in every refusal.
        advised: sentences for the client, without any part of the request.
    """

    def __init__(self, reason: str, advised: str) -> None:
        super().__init__(reason)
        self.detail = f"{self.detail} {advised}"


class TwoCredentials(CredentialError):  # noqa: N818 - as above
    """The request carries credentials of more than one kind; the reason names the kinds."""


class Bearer(msgspec.Struct, frozen=True):
    """A bearer token, not parsed yet."""

    token: str

    def __repr__(self) -> str:
        return "Bearer(token=<hidden>)"


class QuerySigned(msgspec.Struct, frozen=True):
    """A query string as received, and its signature as received."""

    query_string: bytes
    secret_header: bytes

    def __repr__(self) -> str:
        # Anybody could send the two again while the clock window is open.
        return "QuerySigned(query_string=<hidden>, secret_header=<hidden>)"


class MessageSigned(msgspec.Struct, frozen=True):
    """A signed message; the form is recognised so that a request cannot carry another credential beside it."""


def extract(
    headers: Iterable[tuple[bytes, bytes]], query_string: bytes, key_headers: frozenset[bytes] = frozenset()
) -> Bearer | QuerySigned | MessageSigned | None:
    """Return the only credential of a request; None when it has none.

    Args:
        headers: as in an ASGI scope, with names in lower case.
        query_string: as in an ASGI scope, the bytes as received.
        key_headers: the names of headers that may carry the secret of a bearer key, in lower case.

    Raises:
        TwoCredentials: there are credentials of more than one kind.
        Unauthenticated: there is one kind, but it appears twice, or is incomplete, too long or of the wrong shape.
    """
    sent: dict[bytes, list[bytes]] = {name: [] for name in _CREDENTIAL_HEADERS}
    in_headers: list[bytes] = []
    for name, value in headers:
        if name in sent:
            # White space around a value is not part of it (RFC 9110, section 5.5). Not every server removes it.
            sent[name].append(value.strip(b" \t"))
        elif name in key_headers:
            in_headers.append(value.strip(b" \t"))
    keys = len(_KEY_PARAMETER.findall(query_string))

    kinds = {
        "bearer": bool(sent[b"authorization"]),
        "header": bool(in_headers),
        "query": bool(keys or sent[b"secret"]),
        "message": bool(sent[b"signature"] or sent[b"signature-input"]),
    }
    found = [kind for kind, seen in kinds.items() if seen]
    if len(found) > 1:
        raise TwoCredentials(f"credentials of the kinds {' and '.join(found)}")

    _require_single(sent)
    match found:
        case ["bearer"]:
            return _bearer(*sent[b"authorization"])
        case ["header"]:
            return _key_header(in_headers)
        case ["query"]:
            return _query_signed(keys, sent[b"secret"], query_string)
        case ["message"]:
            return MessageSigned()
        case _:
            return None


def _require_single(sent: dict[bytes, list[bytes]]) -> None:
    for name, values in sent.items():
        if len(values) > 1 and name not in _DICTIONARIES:
            raise IllFormed(f"more than one {name.decode()} header", "Send it once.")


def _key_header(values: list[bytes]) -> Bearer:
    if len(values) > 1:
        raise IllFormed("more than one header with a key", "Send one.")
    match = _TOKEN.fullmatch(values[0])
    if match is None or len(values[0]) > _AUTHORIZATION_LIMIT_BYTES:
        raise IllFormed(
            "an ill-formed header with a key", advice.KEY_HEADER.advice(values[0].decode("latin-1"))
        )
    return Bearer(match[0].decode("ascii"))


def _bearer(value: bytes) -> Bearer:
    if len(value) > _AUTHORIZATION_LIMIT_BYTES:
        raise IllFormed(
            "an authorization header that is too long",
            f"At most {_AUTHORIZATION_LIMIT_BYTES} bytes are accepted.",
        )
    match = _BEARER.fullmatch(value)
    if match is None:
        raise IllFormed(
            "an authorization header that is not a bearer token",
            advice.AUTHORIZATION.advice(value.decode("latin-1")),
        )
    return Bearer(match[1].decode("ascii"))


def _query_signed(keys: int, secret_headers: list[bytes], query_string: bytes) -> QuerySigned:
    query = query_string.decode("latin-1")
    if not secret_headers:
        raise IllFormed(
            "a key parameter without a secret header", advice.SIGNED_QUERY_WITHOUT_MAC.advice(query)
        )
    if keys != 1:
        raise IllFormed(
            f"a secret header with {'more than one' if keys else 'no'} key parameter",
            advice.SIGNED_QUERY_WITHOUT_KEY.advice(f"{query}\n{secret_headers[0].decode('latin-1')}"),
        )
    if len(query_string) > _SIGNED_QUERY_LIMIT_BYTES:
        raise IllFormed(
            "a signed query that is too long", f"At most {_SIGNED_QUERY_LIMIT_BYTES} bytes are accepted."
        )
    return QuerySigned(query_string, secret_headers[0])
