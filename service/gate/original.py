"""The request that a proxy received, read from the headers in which the proxy describes it."""

import re
from collections.abc import Iterable

import msgspec
from starlette.types import Scope

from latchkey.service.gate.target import Ambiguous, Host, parse_host, segments_of, split_target
from latchkey.service.problems import Problem

# Frameworks turn a hyphen and an underscore in a header's name into the same character.
_RESERVED = b"x-latchkey"
# Frameworks read a method or a URL from them that differs from the one that the proxy received.
_OVERRIDES = frozenset(
    {b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url"}
)
# Methods are case-sensitive (RFC 9110, section 9.1), but not to every framework.
_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}")
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}

RequestHeaders = Iterable[tuple[bytes, bytes]]
"""As in an ASGI scope, with names in lower case."""


class Description(msgspec.Struct, frozen=True):
    """The headers with which a proxy describes a request: the first four must be sent, the others may be."""

    method: bytes
    uri: bytes
    host: bytes
    proto: bytes
    content_length: bytes
    transfer_encoding: bytes

    @classmethod
    def with_prefix(cls, prefix: str) -> "Description":
        """Return the headers of a family, such as `x-forwarded-`."""
        return cls(*(f"{prefix}{name.replace('_', '-')}".encode() for name in cls.__struct_fields__))

    @property
    def names(self) -> frozenset[bytes]:
        """Return the names of all headers."""
        return frozenset(msgspec.structs.astuple(self))


FORWARDED = Description.with_prefix("x-forwarded-")
"""The headers that Caddy and Traefik set."""
ENVOY_CLIENT = b"x-original-for"
"""The header with the client address in a request of Envoy, which ends X-Forwarded-For with an address of its own."""
ENVOY_URI = b"uri="
"""The beginning of the query of a request of Envoy; the rest is the path and the query of the original request."""
ORIGINAL = Description.with_prefix("x-original-")
"""The headers that the configuration of nginx sets."""
# Those of the client have no meaning; Envoy replaces X-Forwarded-Proto itself.
_NOT_OF_ENVOY = (FORWARDED.names - {FORWARDED.proto}) | {ENVOY_CLIENT, b"x-forwarded-for"}
_NAMES = {one: one.names for one in (FORWARDED, ORIGINAL)}


class OriginalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the client sent it to the proxy."""

    method: str
    scheme: str
    host: Host
    raw_path: str
    segments: tuple[str, ...]
    """The decoded segments of the path."""
    query: str
    """As received, without the question mark."""
    has_body: bool
    """Whether the proxy says that there is a body; False if it does not say."""
    headers: list[tuple[bytes, bytes]]
    """With `host`, and without the headers of the description."""


def read_original(headers: RequestHeaders, described_by: Description) -> OriginalRequest:
    """Return the original request of a request to the gate.

    Args:
        headers: of the request to the gate.
        described_by: the headers in which the proxy describes the request. Headers of another family come
            from the client and are ignored.

    Raises:
        Problem: the description is incomplete or wrong, the request has more than one reading, or the client has sent a
            header whose name belongs to the gate.
    """
    names = _NAMES[described_by]
    told: dict[bytes, bytes] = {}
    kept: list[tuple[bytes, bytes]] = []
    has_forwarded_for = False
    for name, value in headers:
        if name in names:
            if name in told:
                raise invalid(f"The header {name.decode()} is given twice.")
            told[name] = value.strip(b" \t")
            continue
        if name == b"host":
            continue
        if name.startswith((b"x-", b"x_")):
            require_unreserved(name)
            has_forwarded_for = has_forwarded_for or name == b"x-forwarded-for"
        kept.append((name, value))
    needed = (described_by.method, described_by.uri, described_by.host, described_by.proto)
    absent = [name.decode() for name in needed if not told.get(name)]
    if not has_forwarded_for:
        absent.append("x-forwarded-for")
    if absent:
        raise invalid(f"The proxy must set {', '.join(absent)}.")
    return original_of(told, described_by, kept)


def headers_of_envoy(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request of Envoy with its description as `FORWARDED`.

    Envoy keeps the method and the host of the original request, and appends its path and query to a prefix.

    Raises:
        Problem: the configured prefix is another one, or there is no client address.
    """
    query: bytes = scope["query_string"]
    if not query.startswith(ENVOY_URI):
        raise invalid("The path_prefix of Envoy must be /v1/gate/envoy?uri=.")
    sent: list[tuple[bytes, bytes]] = scope["headers"]
    clients = [value for name, value in sent if name == ENVOY_CLIENT]
    if len(clients) != 1:
        raise invalid(f"Envoy must set {ENVOY_CLIENT.decode()} once.")
    told = [
        (FORWARDED.method, scope["method"].encode("latin-1")),
        (FORWARDED.uri, query.removeprefix(ENVOY_URI)),
        *((FORWARDED.host, value) for name, value in sent if name == b"host"),
        (b"x-forwarded-for", clients[0]),
    ]
    return [*told, *((name, value) for name, value in sent if name not in _NOT_OF_ENVOY)]


def original_of(
    told: dict[bytes, bytes], described_by: Description, kept: list[tuple[bytes, bytes]]
) -> OriginalRequest:
    """Return the original request of a complete description."""
    scheme = _SCHEMES.get(told[described_by.proto].lower())
    if scheme is None:
        raise invalid(f"The header {described_by.proto.decode()} must be http, https, ws or wss.")
    if not _METHOD.fullmatch(told[described_by.method]):
        raise ambiguous("the method is not a word in upper case")
    try:
        path, query = split_target(told[described_by.uri].decode("latin-1"))
        host, segments = parse_host(told[described_by.host].decode("latin-1")), segments_of(path)
    except Ambiguous as error:
        raise ambiguous(str(error)) from None
    length = told.get(described_by.content_length, b"")
    return OriginalRequest(
        method=told[described_by.method].decode(),
        scheme=scheme,
        host=host,
        raw_path=path,
        segments=segments,
        query=query,
        has_body=bool(told.get(described_by.transfer_encoding)) or length not in {b"", b"0"},
        headers=[(b"host", told[described_by.host]), *kept],
    )


def require_unreserved(name: bytes) -> None:
    """Raise a problem for a header from the client that the service behind the proxy could take for the gate's."""
    plain = name.replace(b"_", b"-")
    if plain.startswith(_RESERVED):
        raise ambiguous(f"the header {plain.decode('latin-1')[:64]} belongs to the gate")
    if plain in _OVERRIDES:
        raise ambiguous(f"the header {plain.decode()} changes the method or the URL")


def invalid(detail: str) -> Problem:
    """Return the problem for a wrong description."""
    return Problem("gate_request_invalid", detail)


def ambiguous(reason: str) -> Problem:
    """Return the problem for a request with more than one reading."""
    return Problem("ambiguous_request", f"{reason[0].upper()}{reason[1:]}.")
