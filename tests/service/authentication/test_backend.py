"""Credentials through all middleware: which are refused and how, the cost, and what the answers reveal."""

import base64
import hashlib
import logging

import pytest
from starlette.applications import Starlette

from tests import wire
from tests.api import HeldKey, assert_problem, stored
from tests.service.authentication.signed_requests import (
    EMPTY_SHA256,
    NOW,
    WINDOW_S,
    Attempt,
    HeldKeys,
    MakeAttempt,
    bearer,
    header,
    mac,
    signed,
)

BODY = b'{"email":"ann@example.com","name":"Ann"}'
BODY_SHA256 = hashlib.sha256(BODY).hexdigest()
NONCE = "n0nce-0123456789"


def typo(secret: str) -> str:
    return secret[:10] + ("A" if secret[10] != "A" else "B") + secret[11:]


def respelt(proof: str) -> str:
    """Return the same bytes in base64 that is not canonical: the unused bits of the last digit are set."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return proof[:-2] + digits[digits.index(proof[-2]) + 1] + "="


def refused(id: str, make_attempt: MakeAttempt, queries: int) -> object:
    return pytest.param(make_attempt, queries, id=id)


WRONG_BEARERS = [
    refused("no credential", lambda _: Attempt(), 0),
    refused("Basic", lambda _: header("authorization", "Basic YTpi"), 0),
    refused("an empty Authorization", lambda _: header("authorization", ""), 0),
    refused("a scheme alone", lambda _: header("authorization", "Bearer"), 0),
    refused("a secret without a scheme", lambda c: header("authorization", c.bearer.secret), 0),
    refused("no secret", lambda _: header("authorization", "Bearer abc"), 0),
    refused("two tokens", lambda c: header("authorization", f"{c.bearer.bearer[1]} x"), 0),
    refused("a list", lambda c: header("authorization", f"{c.bearer.bearer[1]}, {c.bearer.bearer[1]}"), 0),
    refused("not ASCII", lambda _: header("authorization", "Bearer \xe9"), 0),
    refused("too long", lambda _: header("authorization", "Bearer " + "A" * 9000), 0),
    refused("a typo", lambda c: header("authorization", f"Bearer {typo(c.bearer.secret)}"), 0),
    refused("cut off", lambda c: header("authorization", c.bearer.bearer[1][:-1]), 0),
    refused(
        "another letter case", lambda c: header("authorization", f"Bearer {c.bearer.secret.swapcase()}"), 0
    ),
    refused("an access key", lambda c: header("authorization", f"Bearer {c.bearer.access_key}"), 0),
    refused("Authorization twice", lambda c: bearer(c.bearer).adding(c.bearer.bearer), 0),
    refused("well-formed but unknown", lambda c: bearer(c.unknown), 1),
    refused("the secret of a key that signs", lambda c: bearer(c.signer), 1),
    refused("the secret of a revoked key that signs", lambda c: bearer(c.revoked_signer), 1),
]

WRONG_SIGNATURES = [
    refused("a key without a signature", lambda c: Attempt(f"/v1/me?key={c.signer.access_key}"), 0),
    refused("a signature without a key", lambda _: header("secret", "A" * 43 + "="), 0),
    refused("the secret itself", lambda c: signed(c.signer, proof=c.signer.secret), 0),
    refused("the secret where the key belongs", lambda c: signed(c.signer, key=c.signer.secret), 0),
    refused("two signatures", lambda c: signed(c.signer).adding(("secret", "x")), 0),
    refused("an empty signature", lambda c: signed(c.signer, proof=""), 0),
    refused("a signature in hex", lambda c: signed(c.signer, proof="00" * 32), 0),
    refused("a short signature", lambda c: signed(c.signer, proof=base64.b64encode(b"x" * 31).decode()), 0),
    refused("a signature that is not ASCII", lambda c: signed(c.signer, proof="\xe9" * 43 + "="), 0),
    refused("a signature respelt", lambda c: signed(c.signer, proof=respelt(signed(c.signer).headers[0][1])), 0),
    refused("no timestamp", lambda c: signed(c.signer, timestamp=None), 0),
    refused("a blank timestamp", lambda c: signed(c.signer, timestamp=""), 0),
    refused("a timestamp with a sign", lambda c: signed(c.signer, timestamp=f"+{NOW}"), 0),
    refused("a timestamp with a blank", lambda c: signed(c.signer, timestamp=f" {NOW}"), 0),
    refused("a timestamp with _", lambda c: signed(c.signer, timestamp="1_700_000_000"), 0),
    refused("a timestamp of full-width digits", lambda c: signed(c.signer, timestamp=None, behind="&timestamp=%EF%BC%91"), 0),
    refused("a timestamp with a newline", lambda c: signed(c.signer, timestamp=f"{NOW}\n"), 0),
    refused("a timestamp in milliseconds", lambda c: signed(c.signer, timestamp=f"{NOW}000"), 0),
    refused("a timestamp with a point", lambda c: signed(c.signer, timestamp=f"{NOW}.0"), 0),
    refused("two timestamps", lambda c: signed(c.signer, behind=f"&timestamp={NOW}"), 0),
    refused("two timestamps, one escaped", lambda c: signed(c.signer, behind=f"&%74imestamp={NOW}"), 0),
    refused("two keys", lambda c: signed(c.signer, behind=f"&key={c.signer.access_key}"), 0),
    refused("two keys, one escaped", lambda c: signed(c.signer, behind=f"&k%65y={c.signer.access_key}"), 0),
    refused("two nonces", lambda c: signed(c.signer, nonce=NONCE, behind=f"&nonce={NONCE}"), 0),
    refused("a nonce of 15", lambda c: signed(c.signer, nonce="n" * 15), 0),
    refused("a nonce of 65", lambda c: signed(c.signer, nonce="n" * 65), 0),
    refused("an empty nonce", lambda c: signed(c.signer, nonce=""), 0),
    refused("a nonce with a point", lambda c: signed(c.signer, nonce=NONCE + "."), 0),
    refused("a signed method in lower case", lambda c: signed(c.signer, behind="&method=get"), 0),
    refused("a signed digest in upper case", lambda c: signed(c.signer, content_sha256=EMPTY_SHA256.upper()), 0),
    refused("a signed digest cut off", lambda c: signed(c.signer, content_sha256=EMPTY_SHA256[:-1]), 0),
    refused("an access key cut off", lambda c: signed(c.signer, key=c.signer.access_key[:-1]), 0),
    refused("a blank access key", lambda c: signed(c.signer, key=""), 0),
    refused("a query too long", lambda c: signed(c.signer, behind="&q=" + "x" * 9000), 0),
    refused("an unknown key", lambda c: signed(c.unknown), 1),
    refused("an access key in another letter case", lambda c: signed(c.signer, key="lka_" + c.signer.access_key[4:].swapcase()), 1),
    refused("a bearer's key", lambda c: signed(c.bearer), 1),
    refused("another key's secret", lambda c: signed(c.signer, secret=c.unscoped_signer.secret), 1),
    refused("the secret without its checksum", lambda c: signed(c.signer, secret=c.signer.secret[:-6]), 1),
    refused("the signature of another query", lambda c: signed(c.signer, proof=mac(c.signer.secret, "x")), 1),
    refused("something behind what was signed", lambda c: signed(c.signer).adding(query="&limit=1"), 1),
    refused("too old", lambda c: signed(c.signer, timestamp=str(NOW - WINDOW_S - 1)), 1),
    refused("too far ahead", lambda c: signed(c.signer, timestamp=str(NOW + WINDOW_S + 1)), 1),
    refused("the year 33658", lambda c: signed(c.signer, timestamp="999999999999"), 1),
    refused("the signed method is another", lambda c: signed(c.signer, behind="&method=HEAD"), 1),
    refused("the signed path is another", lambda c: signed(c.signer, behind="&path=%2Fv1%2Fusers"), 1),
    refused("the signed path is decoded", lambda c: signed(c.signer, "GET", "/v1/users/%31", behind="&path=/v1/users/1"), 1),
    refused("a signed message", lambda _: header("signature-input", "sig1=()"), 0),
    refused("a signed message of two headers", lambda _: header("signature", "sig1=:AA==:").adding(("signature-input", "sig1=()")), 0),
]  # fmt: skip

UNAUTHENTICATED = [*WRONG_BEARERS, *WRONG_SIGNATURES]


@pytest.mark.parametrize("make_attempt, queries", UNAUTHENTICATED)
async def test_failures_up_to_the_clock_window_reveal_only_the_shape(
    app: Starlette, held_keys: HeldKeys, make_attempt: MakeAttempt, queries: int
) -> None:
    """What is visible without a query is named; all else gets the same 401, byte for byte, for one query."""
    before = await stored(app.state.db.reader)
    reference = await signed(held_keys.unknown).send(app, ("x-request-id", "same"))

    with wire.listening() as commands:
        answer = await make_attempt(held_keys).send(app, ("x-request-id", "same"))

    assert_problem(answer, 401, "unauthenticated")
    assert reference.json["detail"] == "Not authenticated."
    nonces = [one.headers.pop("accept-signature") for one in (answer, reference)]
    assert nonces[0] != nonces[1]
    if queries:
        assert answer.body == reference.body
        assert answer.headers == reference.headers
    else:
        assert answer.json["detail"].startswith("The request has ")
        assert not [secret for secret in held_keys.secrets if secret[4:20] in answer.body.decode()]
    assert answer.headers["www-authenticate"] == (
        'Bearer realm="latchkey", Signature realm="latchkey", forms="query message"'
    )
    assert len(commands) == queries
    assert await stored(app.state.db.reader) == before


def answered_with(id: str, status: int, code: str, make_attempt: MakeAttempt) -> object:
    return pytest.param(status, code, make_attempt, id=id)


TWO = "two_credentials"
COVER = "coverage_required"
DIGEST = "digest_mismatch"
SPECIFIC = [
    answered_with("bearer and query", 400, TWO, lambda c: signed(c.signer).adding(c.bearer.bearer)),
    answered_with("bearer and key", 400, TWO, lambda c: bearer(c.bearer).adding(query="?key=x")),
    answered_with("bearer and escaped key", 400, TWO, lambda c: bearer(c.bearer).adding(query="?a=b&%6b%65%79")),
    answered_with("bearer and secret header", 400, TWO, lambda c: bearer(c.bearer).adding(("secret", ""))),
    answered_with("bearer and Signature", 400, TWO, lambda c: bearer(c.bearer).adding(("signature", ""))),
    answered_with("bearer and Signature-Input", 400, TWO, lambda c: bearer(c.bearer).adding(("signature-input", ""))),
    answered_with("query and Signature", 400, TWO, lambda c: signed(c.signer).adding(("signature", "x"))),
    answered_with("all three", 400, TWO, lambda c: signed(c.signer).adding(("signature", "x"), c.bearer.bearer)),
    answered_with("Basic and query", 400, TWO, lambda c: signed(c.signer).adding(("authorization", "Basic x"))),
    answered_with("a revoked key", 401, "key_revoked", lambda c: bearer(c.revoked)),
    answered_with("a revoked key that signs", 401, "key_revoked", lambda c: signed(c.revoked_signer)),
    answered_with("an expired key", 401, "key_expired", lambda c: bearer(c.expired)),
    answered_with("an expired key that signs", 401, "key_expired", lambda c: signed(c.expired_signer)),
    answered_with("a blocked owner", 401, "owner_inactive", lambda c: bearer(c.blocked)),
    answered_with("a blocked owner of a key that signs", 401, "owner_inactive", lambda c: signed(c.blocked_signer)),
    answered_with("a create that signs nothing but its query", 403, COVER,
         lambda c: signed(c.signer, "POST", "/v1/users", body=BODY)),
    answered_with("a create that signs no method", 403, COVER,
         lambda c: signed(c.signer, "POST", "/v1/users", body=BODY,
                          behind=f"&path=%2Fv1%2Fusers&content_sha256={BODY_SHA256}")),
    answered_with("a create that signs no path", 403, COVER,
         lambda c: signed(c.signer, "POST", "/v1/users", body=BODY,
                          behind=f"&method=POST&content_sha256={BODY_SHA256}")),
    answered_with("a create that signs no digest", 403, COVER,
         lambda c: signed(c.signer, "POST", "/v1/users", body=BODY, behind="&method=POST&path=%2Fv1%2Fusers")),
    answered_with("an undeclared body without a digest", 403, COVER,
         lambda c: signed(c.signer, "POST", "/v1/users", chunks=[BODY], behind="&method=POST&path=%2Fv1%2Fusers")),
    answered_with("a delete that signs no path", 403, COVER,
         lambda c: signed(c.signer, "DELETE", f"/v1/keys/{c.bearer.access_key}", behind="&method=DELETE")),
    answered_with("a body changed on the way", 401, DIGEST,
         lambda c: signed(c.signer, "POST", "/v1/users", body=BODY.replace(b"Ann", b"Eve"),
                          behind=f"&method=POST&path=%2Fv1%2Fusers&content_sha256={BODY_SHA256}")),
    answered_with("a body in chunks changed on the way", 401, DIGEST,
         lambda c: signed(c.signer, "POST", "/v1/users", chunks=[BODY, b" "],
                          behind=f"&method=POST&path=%2Fv1%2Fusers&content_sha256={BODY_SHA256}")),
    answered_with("a body added on the way", 401, DIGEST,
         lambda c: signed(c.signer, "DELETE", f"/v1/keys/{c.bearer.access_key}", body=b"{}",
                          behind=f"&method=DELETE&path=%2Fv1%2Fkeys%2F{c.bearer.access_key}"
                                 f"&content_sha256={EMPTY_SHA256}")),
    answered_with("a body taken away on the way", 401, DIGEST,
         lambda c: signed(c.signer, "DELETE", f"/v1/keys/{c.bearer.access_key}",
                          behind=f"&method=DELETE&path=%2Fv1%2Fkeys%2F{c.bearer.access_key}"
                                 f"&content_sha256={BODY_SHA256}")),
    answered_with("a body on a read that signed none", 401, DIGEST,
         lambda c: signed(c.signer, body=b"x", behind=f"&content_sha256={EMPTY_SHA256}")),
]  # fmt: skip


@pytest.mark.parametrize("status, code, make_attempt", SPECIFIC)
async def test_failures_after_the_proof_are_told(
    app: Starlette, held_keys: HeldKeys, status: int, code: str, make_attempt: MakeAttempt
) -> None:
    before = await stored(app.state.db.reader)

    with wire.listening() as commands:
        answer = await make_attempt(held_keys).send(app)

    assert_problem(answer, status, code)
    assert len(commands) == (0 if code == TWO else 1)
    assert await stored(app.state.db.reader) == before


ACCEPTED = [
    pytest.param(lambda c: bearer(c.bearer), id="bearer"),
    pytest.param(lambda c: header("authorization", f"bEARER   {c.bearer.secret}"), id="the scheme in any letter case"),
    pytest.param(lambda c: signed(c.signer), id="the least signature"),
    pytest.param(lambda c: signed(c.signer, timestamp=str(NOW - WINDOW_S)), id="just not too old"),
    pytest.param(lambda c: signed(c.signer, timestamp=str(NOW + WINDOW_S)), id="just not too far ahead"),
    pytest.param(lambda c: signed(c.signer, nonce="n" * 16), id="the shortest nonce"),
    pytest.param(lambda c: signed(c.signer, nonce="n" * 64), id="the longest nonce"),
    pytest.param(
        lambda c: signed(c.signer, behind=f"&method=GET&path=%2Fv1%2Fme&content_sha256={EMPTY_SHA256}"),
        id="all parameters",
    ),
    pytest.param(lambda c: signed(c.signer, "GET", "/v1/%6De", behind="&path=%2Fv1%2F%256De"), id="an escaped path"),
    pytest.param(lambda c: signed(c.unscoped_signer), id="no scope for what asks for none"),
    pytest.param(
        lambda c: signed(c.signer, "POST", "/v1/users", body=BODY,
                         behind=f"&method=POST&path=%2Fv1%2Fusers&content_sha256={BODY_SHA256}"),
        id="a create",
    ),
    pytest.param(
        lambda c: signed(c.signer, "POST", "/v1/users", chunks=[BODY[:9], BODY[9:]],
                         behind=f"&method=POST&path=%2Fv1%2Fusers&content_sha256={BODY_SHA256}"),
        id="a create in chunks",
    ),
    pytest.param(
        lambda c: signed(c.signer, "DELETE", f"/v1/keys/{c.bearer.access_key}",
                         behind=f"&method=DELETE&path=%2Fv1%2Fkeys%2F{c.bearer.access_key}"),
        id="a delete that signs no body by signing none",
    ),
]  # fmt: skip


@pytest.mark.parametrize("make_attempt", ACCEPTED)
async def test_valid_credentials_are_accepted(
    app: Starlette, held_keys: HeldKeys, make_attempt: MakeAttempt
) -> None:
    answer = await make_attempt(held_keys).send(app)

    assert answer.status in {200, 201, 204}, answer.body


@pytest.mark.parametrize(
    "make_attempt, accepted",
    [
        pytest.param(
            lambda c: signed(c.signer, "GET", "/v1/users", behind="&email=a%20b&limit=1"),
            True,
            id="as received",
        ),
        pytest.param(
            lambda c: signed(
                c.signer,
                "GET",
                "/v1/users",
                behind="&email=a%20b",
                proof=mac(c.signer.secret, f"key={c.signer.access_key}&timestamp={NOW}&email=a+b"),
            ),
            True,
            id="re-encoded",
        ),
        pytest.param(
            lambda c: signed(
                c.signer,
                "GET",
                "/v1/users",
                behind="&email=a+b",
                proof=mac(c.signer.secret, f"key={c.signer.access_key}&timestamp={NOW}&email=a%20b"),
            ),
            False,
            id="neither",
        ),
    ],
)
async def test_the_query_is_signed_as_received_or_re_encoded(
    app: Starlette, held_keys: HeldKeys, make_attempt: MakeAttempt, accepted: bool
) -> None:
    assert ((await make_attempt(held_keys).send(app)).status == 200) is accepted


async def test_a_signed_keys_secret_sent_as_a_bearer_is_logged_as_exposed(
    app: Starlette, held_keys: HeldKeys, log_lines: list[logging.LogRecord]
) -> None:
    await bearer(held_keys.signer).send(app)

    (warning,) = [line for line in log_lines if line.levelno == logging.WARNING]
    assert held_keys.signer.access_key in warning.getMessage()
    assert "rotate" in warning.getMessage()


@pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/problems/conflict"])
async def test_a_public_route_looks_at_no_credential(app: Starlette, held_keys: HeldKeys, path: str) -> None:
    with wire.listening() as commands:
        answer = await Attempt(f"{path}?key=x&timestamp=y", (held_keys.bearer.bearer, ("secret", "x"))).send(
            app
        )

    assert answer.status == 200
    assert commands == []


@pytest.mark.parametrize("path, method, status", [("/nothing", "GET", 404), ("/v1/me", "PUT", 405)])
async def test_unknown_paths_and_methods_look_up_no_credential(
    app: Starlette, held_keys: HeldKeys, path: str, method: str, status: int
) -> None:
    with wire.listening() as commands:
        answer = await Attempt(path, (held_keys.bearer.bearer,), method).send(app)

    assert answer.status == status
    assert commands == []


async def test_a_missing_scope_is_in_the_challenge(app: Starlette, held_keys: HeldKeys) -> None:
    answer = await signed(held_keys.unscoped_signer, "GET", "/v1/users").send(app)

    assert_problem(answer, 403, "scope_missing")
    assert answer.headers["www-authenticate"] == (
        'Bearer realm="latchkey", error="insufficient_scope", scope="users:read"'
    )


@pytest.mark.parametrize(
    "make_attempt, claimed, proved",
    [
        pytest.param(lambda c: signed(c.signer, secret="x"), "signer", None, id="a wrong signature"),
        pytest.param(lambda c: signed(c.unknown), "unknown", None, id="an unknown key"),
        pytest.param(lambda c: signed(c.signer, timestamp="x"), "signer", None, id="a wrong shape"),
        pytest.param(lambda c: message_of(c.signer), "signer", None, id="a message"),
        pytest.param(lambda c: signed(c.revoked_signer), "revoked_signer", "revoked_signer", id="revoked"),
        pytest.param(lambda c: bearer(c.revoked), None, "revoked", id="a bearer, revoked"),
        pytest.param(lambda c: bearer(c.unknown), None, None, id="a bearer, unknown"),
        pytest.param(lambda c: signed(c.signer, key=c.signer.secret), None, None, id="a secret as key"),
    ],
)
async def test_a_refusal_is_logged_with_the_key_that_was_claimed(
    app: Starlette,
    held_keys: HeldKeys,
    log_lines: list[logging.LogRecord],
    make_attempt: MakeAttempt,
    claimed: str | None,
    proved: str | None,
) -> None:
    """Marked as claimed, because nothing proves it, and apart from a key whose secret was proved."""
    await make_attempt(held_keys).send(app)

    names = [getattr(held_keys, name).access_key if name else "none" for name in (claimed, proved)]
    (line,) = [one.getMessage() for one in log_lines if one.getMessage().startswith("refused: ")]
    assert line.endswith(f"claimed key: {names[0]}, proved key: {names[1]}")
    (access,) = [one.access for one in log_lines if hasattr(one, "access")]
    assert access["claimed_access_key"] == (names[0] if claimed else None)
    assert access["access_key"] is None
    assert not [secret for secret in held_keys.secrets if secret[4:] in line]


def message_of(key: HeldKey) -> Attempt:
    """Return a signed message with a wrong signature."""
    parameters = f'created={NOW};keyid="{key.access_key}";nonce="{NONCE}";tag="latchkey-v1"'
    return Attempt(
        headers=(
            ("signature-input", f'sig1=("@method" "@authority" "@path" "@query");{parameters}'),
            ("signature", f"sig1=:{'A' * 43}=:"),
        )
    )
