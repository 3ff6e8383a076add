"""Explain why a signature is refused: the authenticator's own checks, one by one, with their results.

The caller may read the key, so unlike the authenticator this module names the check that failed. It continues after
a failure where later checks are still possible. It never returns the signature that would be valid.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable

import msgspec

from latchkey.service.authentication import lookup
from latchkey.service.authentication.checks import Refused, require_active
from latchkey.service.authentication.finder import signs
from latchkey.service.authentication.lookup import Found
from latchkey.service.authentication.nonces import Nonces
from latchkey.service.authentication.verifier import Verifier
from latchkey.service.authentication.wire.advice import access_key_part
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
from latchkey.service.database.session import RequestSession
from latchkey.service.explanation.reading import ParsedSignature, Question, read_message, read_query
from latchkey.service.explanation.report import MESSAGE_CHECKS, QUERY_CHECKS, Report
from latchkey.service.explanation.shapes import SignatureClock, SignatureKey, SignatureReport, SignedText
from latchkey.service.explanation.variants import Variant, find_mistake


async def explain(
    verifier: Verifier, nonces: Nonces, session: RequestSession, question: Question
) -> SignatureReport:
    """Explain a signed request.

    Args:
        verifier: the verifier of the authenticator.
        nonces: the used ones.
        session: reads the key, and changes nothing.
        question: the request, and whose keys may be shown.
    """
    scope = question.scope
    now = verifier.clock()
    read: ParsedSignature | None = None
    form: str | None = None
    report = Report(("credential",))
    try:
        credential = extract(scope["headers"], scope["query_string"], verifier.key_headers)
        match credential:
            case QuerySigned():
                form, report = "query", Report(QUERY_CHECKS)
                report.passed("credential", "The request carries a signed query and no other credential.")
                read = read_query(report, verifier, question, credential, now)
            case MessageSigned():
                form, report = "message", Report(MESSAGE_CHECKS)
                report.passed("credential", "The request carries a signed message and no other credential.")
                read = read_message(report, verifier, question, now)
            case Bearer():
                report.failed("credential", "The request carries a bearer token, which is not a signature.")
            case None:
                report.failed("credential", "The request carries no signature.")
    except CredentialError as error:
        report.failed("credential", error.detail)

    found = None
    if read is not None:
        found = await check_key(report, verifier, session, read, question)
        check_clock(report, verifier, read, now)
        check_body(report, read, question.body)
        # The nonces of a key that is not shown are not shown either.
        if parse_access_key(read.access_key, verifier.prefix) is not None and (
            found or question.owner_id is None
        ):
            await check_nonce(report, nonces, session, read)
    return SignatureReport(
        form=form,  # type: ignore[arg-type]  # one of two literals
        signed=() if read is None else hide_secrets(read.texts, verifier.prefix),
        checks=tuple(report.checks.values()),
        clock=None
        if read is None
        else SignatureClock(
            created=read.created,
            now=round(now, 3),
            offset_s=round(read.created - now, 3),
            window_s=verifier.window_s,
            inside=read.inside,
        ),
        key=None if found is None else SignatureKey(access_key=found.key.access_key, status=found.key.status),
    )


async def check_key(
    report: Report, verifier: Verifier, session: RequestSession, read: ParsedSignature, question: Question
) -> Found | None:
    """Look the key up and run the checks that depend on it."""
    access_key = parse_access_key(read.access_key, verifier.prefix)
    if access_key is None:
        report.failed("public_id", access_key_part("key", verifier.prefix).advice(read.access_key))
        return None
    report.passed("public_id", "The key is named by its access key.")
    try:
        found = await lookup.by_access_key(session, access_key)
    except Unauthenticated as error:
        found, reason = None, error.reason
    if found is None or question.owner_id not in {None, found.user.id}:
        report.failed(
            "key",
            f"There is no such key: {reason}." if question.owner_id is None else "The owner has no such key.",
        )
        return None
    if signs(found, access_key):
        report.passed("key", "The key exists, and can sign.")
        report.judge("proof", *prove(verifier, found, access_key, read, question.signed_text))
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


def prove(
    verifier: Verifier, found: Found, access_key: AccessKey, read: ParsedSignature, signed_text: str | None
) -> tuple[bool | None, str]:
    """Check the signature with each secret of the key; None if this is not possible."""
    if read.proves is None:
        return None, "The signature cannot be parsed."
    now = verifier.moment()
    opened = [(one, verifier.open_secret(access_key, one)) for one in found.secrets]
    for one, secret in opened:
        if secret is None or not read.proves(secret):
            continue
        if not one.is_live(now):
            return False, f"It was signed with version {one.version} of the key's secret, which has ended."
        replaced = "" if one.expires_at is None else ", which was replaced"
        return True, f"It was signed with version {one.version} of the key's secret{replaced}."
    live = [secret for one, secret in opened if one.is_live(now)]
    if found.lacks_newest or None in live:
        return None, "The service cannot open the secret of the key; its log says why."
    return False, proof_mistake(read, [secret for secret in live if secret is not None], signed_text)


def proof_mistake(read: ParsedSignature, secrets: Iterable[Secret], signed_text: str | None) -> str:
    """Return the mistake of a signature that no live secret proves."""
    right = ["\n".join(text.lines) for text in read.texts]
    given = () if signed_text is None else (Variant(signed_text.encode(), difference(signed_text, right[0])),)
    for secret in secrets:
        mistake = find_mistake(
            read.mac, [one.encode() for one in right], itertools.chain(given, read.variants()), secret
        )
        if mistake is not None:
            return mistake
    if signed_text is None:
        return (
            "A different secret was used, or a different text was signed, and none of the usual mistakes explains it. "
            "Check that the secret is the newest one of this key, then compare the signed text with `signed`: "
            "send the text that was signed as `signed_text`."
        )
    if signed_text in right:
        return (
            "`signed_text` is the right text, so a different secret was used, or a different text was signed."
        )
    return "`signed_text` is not the text that was signed with this secret, and none of the usual mistakes explains it."


def difference(text: str, right: str) -> str:
    """Return the place of the first difference between the text that was signed and the right one."""
    lines, expected = text.split("\n"), right.split("\n")
    for n, (one, other) in enumerate(zip(lines, expected, strict=False), 1):
        if one != other:
            at = next(
                (k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                min(len(one), len(other)),
            )
            named = re.match(r'"(@?[a-z-]+)": ', other)
            of = f", `{named[1]}`" if named else ""
            return f"`signed_text` was signed, and differs from the right text in line {n}{of}, character {at + 1}."
    return f"`signed_text` was signed, and has {len(lines)} lines in place of {len(expected)}."


def check_clock(report: Report, verifier: Verifier, read: ParsedSignature, now: float) -> None:
    """Check the time of the signature."""
    offset_s = read.created - now
    offset = (
        f"It was signed {abs(offset_s):.0f} s {'after' if offset_s > 0 else 'before'} the service's clock"
    )
    if not read.inside:
        report.failed("clock", f"{offset}; at most {verifier.window_s} s are allowed.")
    else:
        report.judge("clock", read.clock_is_right, f"{offset}.", f"{offset}, and its expires has passed.")


def check_body(report: Report, read: ParsedSignature, body: bytes) -> None:
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


async def check_nonce(report: Report, nonces: Nonces, session: RequestSession, read: ParsedSignature) -> None:
    """Check whether the nonce was used before, without using it."""
    if read.claim is not None:
        report.judge(
            "nonce",
            not await nonces.is_used(session, read.claim),
            "It was not used before.",
            "The signature was used before: sign every call again, with a new nonce.",
        )
    elif read.proves is not None:
        report.passed("nonce", "A call with a safe method and without a nonce may be repeated.")


def hide_secrets(texts: tuple[SignedText, ...], prefix: str) -> tuple[SignedText, ...]:
    """Cut a text that looks like a secret: a client may have sent its secret in place of its access key."""
    secret = re.compile(re.escape(f"{prefix}s") + "(?:(?:_|%5[Ff])[0-9A-Za-z]+){1,2}")
    return tuple(
        msgspec.structs.replace(text, lines=tuple(secret.sub(f"{prefix}s_…", line) for line in text.lines))
        for text in texts
    )
