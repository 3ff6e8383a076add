"""Explain why a signature is refused: the authenticator's own checks, one by one, with their results.

The caller may read every key, so unlike the authenticator this module names the check that failed. It continues after
a failure where later checks are still possible. It never returns the signature that would be valid.
"""

import base64
import hashlib
import re
from collections.abc import Callable

import msgspec
from starlette.types import Scope

from latchkey.service import shapes
from latchkey.service.authentication import lookup
from latchkey.service.authentication.backend import (
    Refused,
    Verifier,
    has_body,
    query_claim,
    query_digest,
    require_active,
    signs,
)
from latchkey.service.authentication.lookup import Found
from latchkey.service.authentication.replay import NonceClaim, is_used
from latchkey.service.authentication.wire import message_signature, query_signature
from latchkey.service.authentication.wire.credentials import AccessKey, Secret, parse_access_key
from latchkey.service.authentication.wire.extraction import (
    Bearer,
    CredentialError,
    MessageSigned,
    QuerySigned,
    Unauthenticated,
    extract,
)
from latchkey.service.authentication.wire.message_signature import EMPTY_SHA256
from latchkey.service.authentication.wire.structured_fields import inner_lists
from latchkey.service.database.session import RequestSession

# In the order in which the authenticator checks.
QUERY_CHECKS = (
    "credential", "shape", "public_id", "key", "proof", "target", "clock", "status", "networks", "coverage",
    "body", "nonce",
)  # fmt: skip
MESSAGE_CHECKS = (
    "credential", "components", "shape", "coverage", "public_id", "key", "proof", "clock", "status", "networks",
    "body", "nonce",
)  # fmt: skip

STAND_IN = base64.b64encode(bytes(32))
"""A placeholder for a signature that cannot be parsed, so that the other parts can be."""


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """The common parts of a signature of either form; nothing of it is verified yet."""

    access_key: str
    created: int
    inside: bool
    clock_is_right: bool
    proves: Callable[[Secret], bool] | None
    """None when the signature itself could not be parsed."""
    digest: bytes | None
    claim: NonceClaim | None
    texts: tuple[shapes.SignedText, ...]


class Report:
    """The checks of one form with their results; a check without a result was not made."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.told = {
            name: shapes.SignatureCheck(
                name=name, result="not_checked", detail="It depends on a check that failed."
            )
            for name in names
        }

    def passed(self, name: str, detail: str) -> None:
        self.told[name] = shapes.SignatureCheck(name=name, result="passed", detail=detail)

    def failed(self, name: str, detail: str) -> None:
        self.told[name] = shapes.SignatureCheck(name=name, result="failed", detail=detail)

    def unknown(self, name: str, detail: str) -> None:
        self.told[name] = shapes.SignatureCheck(name=name, result="not_checked", detail=detail)

    def judge(self, name: str, holds: bool, right: str, wrong: str) -> None:
        (self.passed if holds else self.failed)(name, right if holds else wrong)


async def explain(
    verifier: Verifier, session: RequestSession, scope: Scope, body: bytes
) -> shapes.SignatureReport:
    """Explain a signed request.

    Args:
        verifier: the verifier of the authenticator.
        session: reads the key and the nonce, and changes nothing.
        scope: an ASGI scope with the parts that a signature covers.
        body: of the request.
    """
    now = verifier.clock()
    read: Read | None = None
    form: str | None = None
    report = Report(("credential",))
    try:
        credential = extract(scope["headers"], scope["query_string"])
        match credential:
            case QuerySigned():
                form, report = "query", Report(QUERY_CHECKS)
                report.passed("credential", "The request carries a signed query and no other credential.")
                read = read_query(report, verifier, scope, credential, now)
            case MessageSigned():
                form, report = "message", Report(MESSAGE_CHECKS)
                report.passed("credential", "The request carries a signed message and no other credential.")
                read = read_message(report, verifier, scope, now)
            case Bearer():
                report.failed("credential", "The request carries a bearer token, which is not a signature.")
            case None:
                report.failed("credential", "The request carries no signature.")
    except CredentialError as error:
        report.failed("credential", error.detail)

    found = None if read is None else await check_key(report, verifier, session, read)
    if read is not None:
        check_clock(report, verifier, read, now)
        check_body(report, read, body)
        if parse_access_key(read.access_key, verifier.prefix) is not None:
            await check_nonce(report, session, read)
    return shapes.SignatureReport(
        form=form,  # type: ignore[arg-type]  # one of two literals
        signed=() if read is None else hide_secrets(read.texts, verifier.prefix),
        checks=tuple(report.told.values()),
        clock=None
        if read is None
        else shapes.SignatureClock(
            created=read.created,
            now=round(now, 3),
            offset_s=round(read.created - now, 3),
            window_s=verifier.window_s,
            inside=read.inside,
        ),
        key=None
        if found is None
        else shapes.SignatureKey(access_key=found.key.access_key, status=found.key.status),
    )


def read_query(
    report: Report, verifier: Verifier, scope: Scope, credential: QuerySigned, now: float
) -> Read | None:
    """Parse a signed query and run the checks that need no key."""
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
    report.judge(
        "target",
        query_signature.covers(signature, method, scope["raw_path"]),
        "The signed method and path, where present, match the request.",
        "The request has a different method or path than the signature.",
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
    return Read(
        access_key=signature.access_key,
        created=signature.timestamp,
        inside=inside,
        clock_is_right=inside,
        proves=(lambda secret: query_signature.proves(signature, secret)) if legible else None,
        digest=query_digest(signature, method),
        claim=query_claim(signature, method) if legible or signature.nonce is not None else None,
        texts=(
            shapes.SignedText(what="query_as_received", lines=(received,)),
            shapes.SignedText(what="query_reencoded", lines=(reencoded,)),
        ),
    )


def read_message(report: Report, verifier: Verifier, scope: Scope, now: float) -> Read | None:
    """Parse a signed message and run the checks that need no key."""
    try:
        values = message_signature.component_values(
            method=scope["method"],
            scheme=scope["scheme"],
            raw_path=scope["raw_path"],
            query_string=scope["query_string"],
            headers=scope["headers"],
            public_authority=verifier.public_authority,
        )
    except Unauthenticated as error:
        report.failed("components", error.detail)
        return None
    report.passed("components", f"A signature of this request must cover {', '.join(values)}.")
    legible = True
    try:
        signature = message_signature.parse(scope["headers"], values)
    except Unauthenticated as error:
        report.failed("shape", error.detail)
        legible = False
        try:
            signature = message_signature.parse(with_stand_ins(scope["headers"]), values)
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
    return Read(
        access_key=signature.access_key,
        created=signature.created,
        inside=query_signature.in_window(signature.created, now, verifier.window_s),
        clock_is_right=message_signature.is_current(signature, now, verifier.window_s),
        proves=(lambda secret: message_signature.proves(signature, secret)) if legible else None,
        digest=signature.content_sha256,
        claim=NonceClaim.of_nonce(signature.access_key, signature.nonce, signature.created),
        texts=(shapes.SignedText(what="signature_base", lines=tuple(signature.signed.split("\n"))),),
    )


def with_stand_ins(headers: message_signature.Headers) -> list[tuple[bytes, bytes]]:
    """Replace the signatures by valid placeholders, one for each input; ValueError if the inputs are invalid."""
    inputs = b", ".join(value for name, value in headers if name == b"signature-input").decode("latin-1")
    macs = b", ".join(label.encode() + b"=:" + STAND_IN + b":" for label in inner_lists(inputs))
    return [*((name, value) for name, value in headers if name != b"signature"), (b"signature", macs)]


async def check_key(report: Report, verifier: Verifier, session: RequestSession, read: Read) -> Found | None:
    """Look the key up and run the checks that depend on it."""
    access_key = parse_access_key(read.access_key, verifier.prefix)
    if access_key is None:
        report.failed("public_id", f"The key is not named by its access key, {verifier.prefix}a_….")
        return None
    report.passed("public_id", "The key is named by its access key.")
    try:
        found = await lookup.by_access_key(session, access_key)
    except Unauthenticated as error:
        report.failed("key", f"There is no such key: {error.reason}.")
        return None
    if signs(found, access_key):
        report.passed("key", "The key exists, and can sign.")
        check_proof(report, verifier, found, access_key, read.proves)
    else:
        report.failed("key", "The key has the mode bearer, which cannot sign.")
    try:
        require_active(found, verifier.moment())
    except Refused as error:
        report.failed("status", f"The key is refused with {error.problem.code}: {error.problem.detail}")
    else:
        report.passed("status", "Key and owner are active.")
    if found.key.allowed_networks:
        networks = ", ".join(found.key.allowed_networks)
        report.unknown("networks", f"The client address is not known here; allowed networks: {networks}.")
    else:
        report.passed("networks", "The key may be used from any network.")
    return found


def check_proof(
    report: Report,
    verifier: Verifier,
    found: Found,
    access_key: AccessKey,
    proves: Callable[[Secret], bool] | None,
) -> None:
    """Check the signature with each live secret of the key."""
    if proves is None:
        report.unknown("proof", "The signature cannot be parsed.")
        return
    moment = verifier.moment()
    live = [one for one in found.secrets if one.is_live(moment)]
    opened = [(one, verifier.open_secret(access_key, one)) for one in live]
    used = [one for one, secret in opened if secret is not None and proves(secret)]
    if used:
        replaced = "" if used[0].expires_at is None else ", which was replaced"
        report.passed("proof", f"It was signed with version {used[0].version} of the key's secret{replaced}.")
        return
    if found.lacks_newest or any(secret is None for _, secret in opened):
        report.unknown("proof", "The service cannot open the secret of the key; its log says why.")
        return
    report.failed(
        "proof",
        "A different text was signed, or a different secret was used: compare the signed text with `signed`, then the secret.",
    )


def check_clock(report: Report, verifier: Verifier, read: Read, now: float) -> None:
    """Check the time of the signature."""
    offset_s = read.created - now
    said = f"It was signed {abs(offset_s):.0f} s {'after' if offset_s > 0 else 'before'} the service's clock"
    if not read.inside:
        report.failed("clock", f"{said}; at most {verifier.window_s} s are allowed.")
    else:
        report.judge("clock", read.clock_is_right, f"{said}.", f"{said}, and its expires has passed.")


def check_body(report: Report, read: Read, body: bytes) -> None:
    """Check the body against the signed digest."""
    if read.digest is None:
        report.passed("body", "The signature does not cover the body.")
        return
    actual = hashlib.sha256(body).digest()
    whose = "that of no body" if read.digest == EMPTY_SHA256 else read.digest.hex()
    report.judge(
        "body",
        actual == read.digest,
        "The body has the signed SHA-256.",
        f"The SHA-256 of the body is {actual.hex()}, and the signature has {whose}.",
    )


async def check_nonce(report: Report, session: RequestSession, read: Read) -> None:
    """Check whether the nonce was used before, without using it."""
    if read.claim is not None:
        report.judge(
            "nonce",
            not await is_used(session, read.claim),
            "It was not used before.",
            "The signature was used before: sign every call again, with a new nonce.",
        )
    elif read.proves is not None:
        report.passed("nonce", "A call with a safe method and without a nonce may be repeated.")


def hide_secrets(texts: tuple[shapes.SignedText, ...], prefix: str) -> tuple[shapes.SignedText, ...]:
    """Cut a text that looks like a secret: a client may have sent its secret in place of its access key."""
    secret = re.compile(re.escape(f"{prefix}s") + "(?:_|%5[Ff])[0-9A-Za-z]+")
    return tuple(
        msgspec.structs.replace(text, lines=tuple(secret.sub(f"{prefix}s_…", line) for line in text.lines))
        for text in texts
    )
