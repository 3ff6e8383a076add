"""The normal form of a host and of a path, and the refusal of those that two servers could read differently.

A rule is found by the normal form, and the service behind the proxy routes the text that it received. Both must mean the
same resource, so a path with more than one reading is refused, not normalized.
"""

import re
import unicodedata
from collections.abc import Callable
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

import msgspec

DEFAULT_PORTS = {"http": 80, "https": 443}

_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,255}))(?::(?P<port>[0-9]{1,5}))?"
)
# Segments that have one spelling and one reading; the rest is checked character by character.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-]+(?:\.[A-Za-z0-9_~!$&'()*+,=:@-]+)*)*/?")
_PRINTABLE = re.compile(r"[!-~]*")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Ambiguous(ValueError):  # noqa: N818 - a verdict on a request
    """A host or a path has more than one reading, or none; the message is for the client."""


class Host(msgspec.Struct, frozen=True):
    """A host in its normal form."""

    name: str
    """In lower case, without a final dot; an IPv6 address in its shortest form, without brackets."""
    port: int | None
    """None stands for the default port of the scheme."""


def parse_host(text: str) -> Host:
    """Return a host, optionally with a port, in its normal form, or raise `Ambiguous`."""
    match = _HOST.fullmatch(text)
    if match is None:
        raise Ambiguous("the host is not a name or an address, optionally with a port")
    port = None if match["port"] is None else int(match["port"])
    if match["v6"] is not None:
        try:
            return Host(IPv6Address(match["v6"]).compressed, port)
        except ValueError:
            raise Ambiguous("the host is not an address") from None
    name = match["name"].lower().removesuffix(".")
    if not all(name.split(".")):
        raise Ambiguous("the host has an empty label")
    return Host(name, port)


def split_target(target: str) -> tuple[str, str]:
    """Return the path and the query of a request target, or raise `Ambiguous`; the query has no question mark."""
    path, _, query = target.partition("?")
    if not path.startswith("/"):
        raise Ambiguous("the URI is not a path that begins with a slash")
    return path, query


def segments_of(path: str) -> tuple[str, ...]:
    """Return the decoded segments of a raw path; a slash at the end is ignored.

    Raises:
        Ambiguous: servers differ in their reading of the path.
    """
    if _PLAIN.fullmatch(path):
        return tuple(path.strip("/").split("/")) if len(path) > 1 else ()
    if not _PRINTABLE.fullmatch(path):
        raise Ambiguous("the path has a character that must be percent-encoded")
    if _BROKEN_ESCAPE.search(path):
        raise Ambiguous("the path has a percent sign that does not begin an escape")
    raw = path[1:].split("/")
    if raw[-1] == "":
        raw.pop()
    return tuple(map(_segment, raw))


def _segment(raw: str) -> str:
    if not raw:
        raise Ambiguous("the path has two slashes in a row")
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Ambiguous("the path has escapes that are not UTF-8") from None
    # Some servers compare the compatible forms of characters: U+FF0E is a full stop to them.
    for form in (text, unicodedata.normalize("NFKC", text)):
        for fault, has in _FAULTS:
            if has(form):
                raise Ambiguous(f"the path has {fault}")
    if not unicodedata.is_normalized("NFC", text):
        raise Ambiguous("the path has characters that are not in the normal form C")
    return text


_FAULTS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("a control character", _CONTROL.search),
    ("an encoded slash", lambda text: "/" in text),
    ("a backslash", lambda text: "\\" in text),
    # A server that knows parameters of segments takes `/admin;x` for `/admin`.
    ("a semicolon", lambda text: ";" in text),
    ("a question mark or a number sign", lambda text: "?" in text or "#" in text),
    ("an escape inside an escape", _ESCAPE.search),
    # `.` and `..` are steps; Windows drops dots and spaces at the end of a name.
    ("a segment that ends with a dot or a space", lambda text: text.endswith((".", " "))),
)
