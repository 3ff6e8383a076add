"""The reference of the API for people, at `/docs`: Swagger UI, which shows `/openapi.json` and calls the service."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response

from latchkey.service.pages import files
from latchkey.service.pages.content import fill, prepare
from latchkey.service.problems import Problem

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "content-security-policy": files.POLICY,
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        # Kept by browsers, and asked for again with the entity tag, because another release has other files.
        "cache-control": "no-cache",
    }
)


async def read_reference(request: Request) -> Response:
    """Read the reference as a page for people."""
    return fill(files.Page, files.read("docs.html"), request, **HEADERS)


async def read_reference_file(name: str, request: Request) -> Response:
    """Read a file of the reference."""
    if name not in files.REFERENCE:
        raise Problem("not_found")
    kind, path = files.REFERENCE[name]
    content = files.read(path)
    await asyncio.to_thread(prepare, content)  # the first time, it compresses megabytes
    return fill(kind, content, request, **HEADERS)
