"""Signatures: `/v1/signatures`."""

from collections.abc import Mapping
from urllib.parse import unquote

from starlette.requests import Request
from starlette.types import Scope

from latchkey.middleware.excerpt import excerpt
from latchkey.service.authentication.principal import Principal
from latchkey.service.authentication.wire.credentials import decode_base64
from latchkey.service.client import host_header, split_url
from latchkey.service.explanation.checks import explain
from latchkey.service.explanation.reading import Question
from latchkey.service.explanation.shapes import SignatureReport, SignedRequest
from latchkey.service.parts import parts_of
from latchkey.service.problems import field_problem


async def explain_signature(request: Request, body: SignedRequest) -> SignatureReport:
    """Explain how the service verifies a signed request, for a partner whose calls are refused.

    The checks of a call are made in their order, and continue after a failure where that is possible.
    Nothing is used up: neither the nonce nor the limits of the signing key.
    The response contains no secret, and never the signature that would be valid.
    """
    return await explained(request, body)


async def explain_my_signature(request: Request, caller: Principal, body: SignedRequest) -> SignatureReport:
    """Explain how the service verifies a signed request with a key of the caller's owner.

    The rules of `POST /v1/signatures/explain` apply. A key of another owner is reported like a key that does not exist.
    """
    return await explained(request, body, owner_id=caller.user.id)


async def explained(request: Request, sent: SignedRequest, *, owner_id: int | None = None) -> SignatureReport:
    """Return the report about a request; with `owner_id` only about this owner's keys."""
    parts = parts_of(request.app)
    return await explain(
        parts.verifier,
        parts.replays.nonces,
        request.state.session,
        Question(
            scope=as_received(sent),
            body=content_of(sent),
            signed_text=sent.signed_text if isinstance(sent.signed_text, str) else None,
            url_host=host_header(split_url(sent.url)),
            caller_host=request.headers.get("host"),
            owner_id=owner_id,
        ),
    )


def as_received(sent: SignedRequest) -> Scope:
    """Return the ASGI scope that the server would create for a request, with the parts that a signature covers."""
    scope = scope_of(sent.method, sent.url, sent.headers, pointer="/url")
    names = {name for name, _ in scope["headers"]}
    content = content_of(sent)
    if content and not names & {b"content-length", b"transfer-encoding"}:
        scope["headers"].append((b"content-length", str(len(content)).encode()))
    return scope


def scope_of(method: str, url: str, headers: Mapping[str, str | list[str]], *, pointer: str) -> Scope:
    """Return the ASGI scope of a request without its body.

    Args:
        method: as received.
        url: absolute.
        headers: by their names in any letter case; a repeated header has a list of values.
        pointer: to the URL in the body of the call, for the problem with a wrong one.
    """
    try:
        parts = split_url(url)
    except ValueError as error:
        raise field_problem(pointer, excerpt(str(error).removesuffix("."))) from None
    lines = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    if not any(name == b"host" for name, _ in lines):
        lines.append((b"host", host_header(parts).encode()))
    return {
        "method": method,
        "scheme": parts.scheme,
        "path": unquote(parts.path or "/"),
        "raw_path": (parts.path or "/").encode(),
        "query_string": parts.query.encode(),
        "headers": lines,
    }


def content_of(sent: SignedRequest) -> bytes:
    """Return the bytes of the body."""
    if isinstance(sent.body, str) and isinstance(sent.body_base64, str):
        raise field_problem("/body_base64", "the body is given twice")
    if isinstance(sent.body, str):
        return sent.body.encode()
    if not isinstance(sent.body_base64, str):
        return b""
    content = decode_base64(sent.body_base64)
    if content is None:
        raise field_problem("/body_base64", "it is not canonical base64")
    return content
