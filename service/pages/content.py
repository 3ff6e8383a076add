"""Content that does not change while the process lives: its bytes, compressed and not, and its entity tags."""

import gzip
import hashlib
import re
from functools import lru_cache
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

# A weight of 0 refuses the coding (RFC 9110, section 12.4.2).
_REFUSED = re.compile(r"q=0(\.0{0,3})?", re.IGNORECASE)


Filled = TypeVar("Filled", bound=Response)


def fill(response: type[Filled], content: bytes, request: Request, **headers: str) -> Filled:
    """Return a response with the content, compressed for a client that accepts gzip.

    It has an `ETag`, so that a request with `If-None-Match` is answered with 304 if the client has the content already.
    """
    compressed, digest = prepare(content)
    is_compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
    tag = f'"{digest}-gzip"' if is_compressed else f'"{digest}"'
    found = {"etag": tag, "vary": "accept-encoding", **headers}
    held = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if held & {tag, "*"}:
        return response(status_code=304, headers=found)
    if is_compressed:
        return response(compressed, headers={**found, "content-encoding": "gzip"})
    return response(content, headers=found)


def accepts_gzip(header: str) -> bool:
    """Return whether an `Accept-Encoding` allows gzip: by name, or by `*` if it is not named."""
    allowed = {}
    for one in header.lower().split(","):
        coding, *parameters = (part.strip() for part in one.split(";"))
        allowed[coding] = not any(_REFUSED.fullmatch(part) for part in parameters)
    return allowed.get("gzip", allowed.get("*", False))


@lru_cache(maxsize=16)
def prepare(content: bytes) -> tuple[bytes, str]:
    """Return content compressed, and the start of its SHA-256."""
    return gzip.compress(content, mtime=0), hashlib.sha256(content).hexdigest()[:32]
