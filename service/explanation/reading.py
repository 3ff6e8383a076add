"""The parts of a signed request, and the checks that need no key."""

import base64
from collections.abc import Callable, Iterable
from urllib.parse import unquote

import msgspec
from starlette.types import Scope

from latchkey.service.authentication.checks import has_body
from latchkey.service.authentication.nonces import NonceClaim
from latchkey.service.authentication.signed_query import query_claim, query_digest
from latchkey.service.authentication.verifier import Verifier
from latchkey.service.authentication.wire import message_signature, query_signature
from latchkey.service.authentication.wire.credentials import Secret
from latchkey.service.authentication.wire.extraction import QuerySigned, Unauthenticated
from latchkey.service.authentication.wire.structured_fields import inner_lists
from latchkey.service.explanation.message_variants import message_texts, other_hosts
from latchkey.service.explanation.query_variants import query_texts
from latchkey.service.explanation.report import Report
from latchkey.service.explanation.shapes import SignedText
from latchkey.service.explanation.variants import Variant

STAND_IN = base64.b64encode(bytes(32))
"""A placeholder for a signature that cannot be parsed, so that the other parts can be."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A signed request to explain, and the caller that asks for the explanation."""

    scope: Scope
    """An ASGI scope with the parts that a signature covers."""
    body: bytes
    signed_text: str | None
    """The text that the client signed, if it is known."""
    url_host: str
    """The host of the URL; `caller_host` is that of the call that asks. The client may have signed either."""
    caller_host: str | None
    owner_id: int | None
    """Other owners' keys are reported as unknown; None reports every key."""


class ParsedSignature(msgspec.Struct, frozen=True, kw_only=True):
    """The common parts of a signature of either form; nothing of it is verified yet."""

    access_key: str
    created: int
    inside: bool
    clock_is_right: bool
    proves: Callable[[Secret], bool] | None
    """None when the signature itself could not be parsed."""
    digest: bytes | None
    claim: NonceClaim | None
    texts: tuple[SignedText, ...]
    mac: bytes
    variants: Callable[[], Iterable[Variant]]
    """Returns the texts that the client may have signed by mistake."""


def read_query(
    report: Report, verifier: Verifier, question: Question, credential: QuerySigned, now: float
) -> ParsedSignature | None:
    """Parse a signed query and run the checks that need no key."""
    scope = question.scope
    legible = True
    try:
        signature = query_signature.parse(credential.query_string, credential.secret_header)
    except Unauthenticated as error:
        report.failed("shape", error.detail)
        legible = False
        try:
            signature = query_signature.parse(credential.query_string, STAND_IN)
        except Unauthenticated:
            return None
    else:
        report.passed("shape", "The parameters and the secret header are well-formed.")
    method = scope["method"]
    path = scope["raw_path"].decode("latin-1")
    report.judge(
        "target",
        query_signature.covers(signature, method, scope["raw_path"]),
        "The signed method and path, where present, match the request.",
        target_mistake(signature.method, signature.path, method, path),
    )
    missing = query_signature.missing_coverage(signature, method, has_body(scope))
    report.judge(
        "coverage",
        not missing,
        f"The query has every parameter that a signed {method} requires.",
        f"The query lacks {', '.join(missing)}.",
    )
    inside = query_signature.in_window(signature.timestamp, now, verifier.window_s)
    received, reencoded = (text.decode("ascii") for text in signature.signed)
    return ParsedSignature(
        access_key=signature.access_key,
        created=signature.timestamp,
        inside=inside,
        clock_is_right=inside,
        proves=(lambda secret: query_signature.proves(signature, secret)) if legible else None,
        digest=query_digest(signature, method),
        claim=query_claim(signature, method) if legible or signature.nonce is not None else None,
        texts=(
            SignedText(what="query_as_received", lines=(received,)),
            SignedText(what="query_reencoded", lines=(reencoded,)),
        ),
        mac=signature.mac,
        variants=lambda: query_texts(
            received,
            method=method,
            path=path,
            origin=f"{scope['scheme']}://{host_of(scope)}",
            body=question.body,
        ),
    )


def target_mistake(signed_method: str | None, signed_path: str | None, method: str, path: str) -> str:
    """Return the difference between the signed method and path and those of the request."""
    if signed_method not in {None, method}:
        return "The parameter `method` differs from the method of the request."
    signed = signed_path or path
    if signed.rstrip("/") == path.rstrip("/"):
        longer = "signed path" if len(signed) > len(path) else "path of the request"
        return f"Only the {longer} has a slash at its end."
    if signed.partition("?")[0] == path:
        return "The signed path contains the query."
    if unquote(signed) == unquote(path):
        return "The signed path has other percent escapes than the path of the request."
    if signed.lower() == path.lower():
        return "The signed path has other upper-case letters than the path of the request."
    return "The parameter `path` differs from the path of the request; a proxy may have changed it."


def host_of(scope: Scope) -> str:
    """Return the `Host` of a request."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")


def read_message(
    report: Report, verifier: Verifier, question: Question, now: float
) -> ParsedSignature | None:
    """Parse a signed message and run the checks that need no key."""
    scope = question.scope
    scheme = verifier.public_scheme or scope["scheme"]
    try:
        values = message_signature.component_values(
            method=scope["method"],
            scheme=scheme,
            raw_path=scope["raw_path"],
            query_string=scope["query_string"],
            headers=scope["headers"],
            public_authority=verifier.public_authority,
        )
    except Unauthenticated as error:
        report.failed("components", error.detail)
        return None
    report.passed("components", f"A signature of this request must cover {', '.join(values)}.")
    target = message_signature.target_uri(values, scheme)
    legible = True
    try:
        signature = message_signature.parse(scope["headers"], values, target=target)
    except Unauthenticated as error:
        report.failed("shape", error.detail)
        legible = False
        try:
            signature = message_signature.parse(with_stand_ins(scope["headers"]), values, target=target)
        except (Unauthenticated, ValueError):
            return None
    else:
        report.passed("shape", "The signature and its parameters are well-formed.")
    missing = message_signature.missing_coverage(signature, values, has_body(scope))
    report.judge(
        "coverage",
        not missing,
        "The signature covers every required component.",
        f"The signature does not cover {', '.join(missing)}.",
    )
    covered = (
        {**values, message_signature.TARGET: target}
        if message_signature.TARGET in signature.components
        else values
    )
    hosts = other_hosts(values["@authority"], (host_of(scope), question.url_host, question.caller_host))
    return ParsedSignature(
        access_key=signature.access_key,
        created=signature.created,
        inside=query_signature.in_window(signature.created, now, verifier.window_s),
        clock_is_right=message_signature.is_current(signature, now, verifier.window_s),
        proves=(lambda secret: message_signature.proves(signature, secret)) if legible else None,
        digest=signature.content_sha256,
        claim=NonceClaim.of_nonce(signature.access_key, signature.nonce, signature.created),
        texts=(SignedText(what="signature_base", lines=tuple(signature.signed.split("\n"))),),
        mac=signature.mac,
        variants=lambda: message_texts(signature, covered, hosts=hosts, body=question.body),
    )


def with_stand_ins(headers: message_signature.RequestHeaders) -> list[tuple[bytes, bytes]]:
    """Replace the signatures by valid placeholders, one for each input; ValueError if the inputs are invalid."""
    inputs = b", ".join(value for name, value in headers if name == b"signature-input").decode("latin-1")
    macs = b", ".join(label.encode() + b"=:" + STAND_IN + b":" for label in inner_lists(inputs))
    return [*((name, value) for name, value in headers if name != b"signature"), (b"signature", macs)]
