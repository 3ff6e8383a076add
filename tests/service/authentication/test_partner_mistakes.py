"""The mistakes of partners that are visible in the request alone: the 401 itself names each of them.

`tests/service/endpoints/test_explained_mistakes.py` has those that only an explanation can name.
"""

import base64
import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.service.authentication.wire import advice
from latchkey.service.authentication.wire.message_signature import sign_message
from tests import wire
from tests.api import HeldKey, assert_problem
from tests.service.authentication.signed_requests import (
    NOW,
    Attempt,
    HeldKeys,
    MakeAttempt,
    bearer,
    header,
    mac,
    signed,
)

BODY = b'{"email":"ann@example.com","name":"Ann"}'
SHA256 = hashlib.sha256(BODY).digest()
MILLISECONDS = f"{NOW}000"
NONCE = "n0nce-0123456789abcdef"


def mistake(id: str, make_attempt: MakeAttempt, *words: str) -> tuple[str, MakeAttempt, tuple[str, ...]]:
    """Return a mistake, and the words of the answer that name it."""
    return id, make_attempt, words


def proof(key: HeldKey) -> bytes:
    """Return a MAC of which URL-safe base64 differs from the usual one."""
    return next(
        found
        for n in range(1000)
        if {"+", "/"} & set(found := mac(key.secret, f"key={key.access_key}&timestamp={NOW}&a={n}"))
    ).encode()


def respelt(change: Callable[[bytes], str]) -> MakeAttempt:
    """Return a signed query whose signature is spelt in another way."""
    return lambda c: signed(c.signer, proof=change(base64.b64decode(proof(c.signer))))


def message(
    change: Callable[[str, str], str | None] = lambda _name, value: value,
    *,
    method: str = "GET",
    path: str = "/v1/me",
    body: bytes | None = None,
    **call: Any,
) -> MakeAttempt:
    """Return a signed message, each header of which `change` may replace, or leave out with None."""

    def make_attempt(c: HeldKeys) -> Attempt:
        headers = sign_message(
            c.signer.secret, c.signer.access_key, NOW,
            method=method, scheme="http", authority="testserver", raw_path=path, nonce=NONCE, body=body,
            content_type=None if body is None else "application/json", **call,
        )  # fmt: skip
        changed = {name: change(name, value) for name, value in headers.items()}
        kept = tuple((name, value) for name, value in changed.items() if value is not None)
        return Attempt(path, kept, method, body)

    return make_attempt


def replacing(header: str, old: str, new: str, **call: Any) -> MakeAttempt:
    """Return a signed message, one header of which is changed after it was signed."""

    def change(name: str, value: str) -> str:
        if name != header:
            return value
        assert old in value
        return value.replace(old, new)

    return message(change, **call)


def with_mac(spell: Callable[[bytes], str], *, colons: str = ":") -> MakeAttempt:
    """Return a signed message whose MAC is spelt in another way."""

    def change(name: str, value: str) -> str:
        if name != "signature":
            return value
        return f"sig1={colons}{spell(base64.b64decode(value.split(':')[1]))}{colons}"

    return message(change)


def without(*names: str, **call: Any) -> MakeAttempt:
    return message(lambda name, value: None if name in names else value, **call)


INPUT = "signature-input"
COVERED = '"@method" "@authority" "@path" "@query"'
POST = {"method": "POST", "path": "/v1/users", "body": BODY}

QUERY = [
    mistake("timestamp in milliseconds", lambda c: signed(c.signer, timestamp=MILLISECONDS), "`timestamp`", "seconds", "milliseconds"),
    mistake("timestamp in microseconds", lambda c: signed(c.signer, timestamp=f"{NOW}000000"), "`timestamp`", "microseconds"),
    mistake("timestamp as a date", lambda c: signed(c.signer, timestamp="2026-11-26T16:00:00Z"), "`timestamp`", "Unix time", "ISO 8601"),
    mistake("timestamp as an HTTP date", lambda c: signed(c.signer, timestamp="Thu, 26 Nov 2026 16:00:00 GMT"), "`timestamp`", "in words"),
    mistake("timestamp with a fraction", lambda c: signed(c.signer, timestamp=f"{NOW}.25"), "`timestamp`", "fraction"),
    mistake("timestamp with an exponent", lambda c: signed(c.signer, timestamp="1.7e9"), "`timestamp`", "exponent"),
    mistake("timestamp in quotes", lambda c: signed(c.signer, timestamp=f'"{NOW}"'), "`timestamp`", "quotes"),
    mistake("timestamp empty", lambda c: signed(c.signer, timestamp=""), "`timestamp`", "empty"),
    mistake("no timestamp", lambda c: signed(c.signer, timestamp=None), "without the parameter timestamp", "Unix time"),
    mistake("timestamp in another letter case", lambda c: signed(c.signer, timestamp=None, Timestamp=str(NOW)), "without the parameter timestamp"),
    mistake("timestamp twice", lambda c: signed(c.signer, behind=f"&timestamp={NOW}"), "timestamp more than once"),
    mistake("digest in upper case", lambda c: signed(c.signer, content_sha256=SHA256.hex().upper()), "`content_sha256`", "lower-case", "upper-case"),
    mistake("digest in base64", lambda c: signed(c.signer, content_sha256=base64.b64encode(SHA256).decode()), "`content_sha256`", "hexadecimal", "base64"),
    mistake("digest with a prefix", lambda c: signed(c.signer, content_sha256=f"sha256={SHA256.hex()}"), "`content_sha256`", "prefix"),
    mistake("digest by MD5", lambda c: signed(c.signer, content_sha256=hashlib.md5(BODY).hexdigest()), "`content_sha256`", "MD5"),
    mistake("digest by SHA-512", lambda c: signed(c.signer, content_sha256=hashlib.sha512(BODY).hexdigest()), "`content_sha256`", "SHA-512"),
    mistake("digest empty", lambda c: signed(c.signer, content_sha256=""), "`content_sha256`", "empty text"),
    mistake("MAC in hexadecimal", respelt(bytes.hex), "`secret`", "base64", "hexadecimal"),
    mistake("MAC in upper-case hexadecimal", respelt(lambda m: m.hex().upper()), "`secret`", "base64", "hexadecimal"),
    mistake("MAC in hexadecimal with a prefix", respelt(lambda m: f"sha256={m.hex()}"), "`secret`", "hexadecimal", "prefix"),
    mistake("MAC as openssl prints it", respelt(lambda m: f"SHA2-256(stdin)= {m.hex()}"), "`secret`", "output of a tool"),
    mistake("MAC in base64 of hexadecimal", respelt(lambda m: base64.b64encode(m.hex().encode()).decode()), "`secret`", "64 bytes"),
    mistake("MAC in URL-safe base64", respelt(lambda m: base64.urlsafe_b64encode(m).decode()), "`secret`", "URL-safe"),
    mistake("MAC in URL-safe base64 without padding", respelt(lambda m: base64.urlsafe_b64encode(m).decode().rstrip("=")), "`secret`", "URL-safe"),
    mistake("MAC without padding", respelt(lambda m: base64.b64encode(m).decode().rstrip("=")), "`secret`", "padding"),
    mistake("MAC percent-encoded", respelt(lambda m: base64.b64encode(m).decode().replace("=", "%3D")), "`secret`", "percent-encoded"),
    mistake("MAC in quotes", respelt(lambda m: f'"{base64.b64encode(m).decode()}"'), "`secret`", "quotes"),
    mistake("MAC between colons", respelt(lambda m: f":{base64.b64encode(m).decode()}:"), "`secret`", "colons"),
    mistake("MAC in two pieces", respelt(lambda m: base64.b64encode(m).decode()[:20] + " " + base64.b64encode(m).decode()[20:]), "`secret`", "white space"),
    mistake("MAC by SHA-1", respelt(lambda m: base64.b64encode(m[:20]).decode()), "`secret`", "SHA-1"),
    mistake("MAC by SHA-512", respelt(lambda m: base64.b64encode(m + m).decode()), "`secret`", "SHA-512"),
    mistake("MAC empty", lambda c: signed(c.signer, proof=""), "`secret`", "empty"),
    mistake("the plain secret in the header", lambda c: signed(c.signer, proof=c.signer.secret), "`secret`", "exposed", "rotate"),
    mistake("the plain secret in the header, no key", lambda c: header("secret", c.signer.secret), "exposed", "rotate"),
    mistake("the plain secret as key", lambda c: signed(c.signer, key=c.signer.secret), "`key`", "exposed", "rotate"),
    mistake("the plain secret in the query alone", lambda c: Attempt(f"/v1/me?secret={c.signer.secret}"), "exposed", "rotate"),
    mistake("the escaped secret in the query", lambda c: Attempt(f"/v1/me?key={c.signer.secret.replace('_', '%5F')}"), "exposed", "rotate"),
    mistake("key without a header", lambda c: Attempt(f"/v1/me?key={c.signer.access_key}&timestamp={NOW}"), "without a secret header", "`secret`"),
    mistake("a header without key", lambda c: header("secret", proof(c.signer).decode()), "no key parameter", "`key`"),
    mistake("key by another name", lambda c: signed(c.signer, key=None, access_key=c.signer.access_key), "no key parameter", "name"),
    mistake("key in another letter case", lambda c: signed(c.signer, key=None, Key=c.signer.access_key), "no key parameter", "lower case"),
    mistake("key without its prefix", lambda c: signed(c.signer, key=c.signer.access_key[4:]), "`key`", "prefix"),
    mistake("key cut off", lambda c: signed(c.signer, key=c.signer.access_key[:-1]), "`key`", "missing"),
    mistake("key is the email", lambda c: signed(c.signer, key="ann@example.com"), "`key`", "email"),
    mistake("method in lower case", lambda c: signed(c.signer, "POST", "/v1/users", body=BODY, method="post"), "`method`", "upper case", "lower-case"),
    mistake("method empty", lambda c: signed(c.signer, method=""), "`method`", "empty"),
    mistake("path is a URL", lambda c: signed(c.signer, path="https://testserver/v1/me"), "`path`", "URL"),
    mistake("path without a slash", lambda c: signed(c.signer, path="v1/me"), "`path`", "`/`"),
    mistake("path with a space", lambda c: signed(c.signer, path="/v1/a b"), "`path`", "white space"),
    mistake("nonce too short", lambda c: signed(c.signer, nonce="abc"), "`nonce`", "16", "fewer"),
    mistake("nonce too long", lambda c: signed(c.signer, nonce="n" * 65), "`nonce`", "64", "more"),
    mistake("nonce in base64", lambda c: signed(c.signer, nonce="AAAAAAAAAAAAAAAAAAAAAA=="), "`nonce`", "URL-safe"),
]  # fmt: skip

MESSAGE = [
    mistake("no tag", replacing(INPUT, ';tag="latchkey-v1"', ""), "latchkey-v1", "No signature has a tag"),
    mistake("another tag", replacing(INPUT, "latchkey-v1", "my-app"), "latchkey-v1", "another one"),
    mistake("tag without quotes", replacing(INPUT, '"latchkey-v1"', "latchkey-v1"), "latchkey-v1", "quotes"),
    mistake("query not covered", replacing(INPUT, ' "@query"', ""), "does not cover @query", "must cover"),
    mistake("content type not covered", replacing(INPUT, ' "content-type"', "", **POST), "does not cover content-type", "must cover"),
    mistake("digest not covered", replacing(INPUT, ' "content-digest"', "", **POST), "does not cover content-digest", "must cover"),
    mistake("digest neither sent nor covered", lambda c: replacing(INPUT, ' "content-digest"', "", **POST)(c) and
            without_digest(c), "does not cover content-digest", "Send `Content-Digest`"),
    mistake("digest covered and not sent", without("content-digest", **POST), "no header content-digest"),
    mistake("created in milliseconds", replacing(INPUT, f"created={NOW}", f"created={MILLISECONDS}"), "`created`", "seconds", "milliseconds"),
    mistake("created as a date", replacing(INPUT, f"created={NOW}", 'created="2026-11-26T16:00:00Z"'), "`created`", "ISO 8601"),
    mistake("created as a string", replacing(INPUT, f"created={NOW}", f'created="{NOW}"'), "`created`", "quotes"),
    mistake("created with a fraction", replacing(INPUT, f"created={NOW}", f"created={NOW}.5"), "`created`", "fraction"),
    mistake("no created", replacing(INPUT, f";created={NOW}", ""), "without created", "Unix time"),
    mistake("expires in milliseconds", replacing(INPUT, f"created={NOW}", f"created={NOW};expires={MILLISECONDS}"), "`expires`", "milliseconds"),
    mistake("nonce of 3 characters", replacing(INPUT, NONCE, "abc"), "`nonce`", "16", "fewer"),
    mistake("nonce without quotes", replacing(INPUT, f'"{NONCE}"', NONCE), "`nonce`", "quotes"),
    mistake("nonce in base64", replacing(INPUT, NONCE, "AAAAAAAAAAAAAAAAAAAAAA=="), "`nonce`", "URL-safe"),
    mistake("no nonce", replacing(INPUT, f';nonce="{NONCE}"', ""), "without nonce", "16"),
    mistake("no keyid", lambda c: replacing(INPUT, f';keyid="{c.signer.access_key}"', "")(c), "without keyid", "access key"),
    mistake("another algorithm", replacing(INPUT, ";nonce", ';alg="ed25519";nonce'), "`alg`", "hmac-sha256", "another algorithm"),
    mistake("the algorithm's name in JSON Web Signatures", replacing(INPUT, ";nonce", ';alg="HS256";nonce'), "`alg`", "another name"),
    mistake("an unknown parameter", replacing(INPUT, ";nonce", ';version="1";nonce'), "created, expires, keyid, nonce, tag, alg"),
    mistake("labels differ", replacing("signature", "sig1", "sig2"), "different labels", "one label"),
    mistake("no Signature", without("signature"), "no header signature.", "`Signature-Input` and `Signature`"),
    mistake("no Signature-Input", without(INPUT), "no header signature-input.", "`Signature-Input` and `Signature`"),
    mistake("MAC in hexadecimal", with_mac(bytes.hex), "`Signature`", "hexadecimal"),
    mistake("MAC in upper-case hexadecimal", with_mac(lambda m: m.hex().upper()), "`Signature`", "base64"),
    mistake("MAC in URL-safe base64", with_mac(lambda _: "-_" * 21 + "A="), "`Signature`", "URL-safe"),
    mistake("MAC without padding", with_mac(lambda m: base64.b64encode(m).decode().rstrip("=")), "`Signature`", "padding"),
    mistake("MAC without colons", with_mac(lambda m: base64.b64encode(m).decode(), colons=""), "`Signature`", "colons"),
    mistake("MAC in quotes", with_mac(lambda m: base64.b64encode(m).decode(), colons='"'), "`Signature`", "colons"),
    mistake("MAC without its label", replacing("signature", "sig1=:", ":"), "`Signature`", "label"),
    mistake("label missing from the input", replacing(INPUT, "sig1=(", "("), "`Signature-Input`", "label"),
    mistake("components without quotes", replacing(INPUT, COVERED, COVERED.replace('"', "")), "not in quotes"),
    mistake("components separated by commas", replacing(INPUT, COVERED, COVERED.replace(" ", ", ")), "commas", "one space"),
    mistake("components with two spaces", replacing(INPUT, COVERED, COVERED.replace(" ", "  ")), "one space"),
    mistake("parameters with a space", replacing(INPUT, ";keyid", "; keyid"), "white space", "semicolon"),
    mistake("parameters separated by commas", replacing(INPUT, ";keyid", ",keyid"), "semicolons"),
    mistake("a component in upper case", replacing(INPUT, ' "content-type"', ' "Content-Type"', **POST), "lower case", "upper-case"),
    mistake("a component with a parameter", replacing(INPUT, '"@path"', '"@path";req'), "without parameters"),
    mistake("a component twice", replacing(INPUT, '"@path"', '"@path" "@path"'), "more than once"),
    mistake("a component of another kind", replacing(INPUT, '"@query"', '"@query" "date"'), "and nothing else", "@query"),
    mistake("no components", replacing(INPUT, COVERED, ""), "empty"),
    mistake("keyid without quotes", lambda c: replacing(INPUT, f'"{c.signer.access_key}"', c.signer.access_key)(c), "`keyid`", "quotes"),
    mistake("keyid is the secret", lambda c: replacing(INPUT, c.signer.access_key, c.signer.secret)(c), "`keyid`", "exposed", "rotate"),
    mistake("keyid without its prefix", replacing(INPUT, "lka_", ""), "`keyid`", "prefix"),
    mistake("digest header in hexadecimal", replacing("content-digest", base64.b64encode(SHA256).decode(), SHA256.hex(), **POST), "`Content-Digest`", "hexadecimal"),
    mistake("digest header without colons", replacing("content-digest", f":{base64.b64encode(SHA256).decode()}:", base64.b64encode(SHA256).decode(), **POST), "`Content-Digest`", "colons"),
    mistake("digest header in upper case", replacing("content-digest", "sha-256", "SHA-256", **POST), "`Content-Digest`", "lower case"),
    mistake("digest header with SHA-512", replacing("content-digest", "sha-256", "sha-512", **POST), "`Content-Digest`", "another algorithm"),
    mistake("the draft by Cavage", lambda c: header("signature", f'keyId="{c.signer.access_key}",algorithm="hs2019",signature="AA=="'), "signature-input", "`Signature-Input` and `Signature`"),
    mistake("the draft by Cavage in Authorization", lambda c: header("authorization", f'Signature keyId="{c.signer.access_key}"'), "Cavage", "Bearer"),
]  # fmt: skip

BEARER = [
    mistake("no credential", lambda _: Attempt(), "no credential", "Authorization: Bearer"),
    mistake("Basic", lambda _: header("authorization", "Basic YTpi"), "Bearer", "Basic is not supported"),
    mistake("no scheme", lambda c: header("authorization", c.bearer.secret), "`Bearer`", "missing"),
    mistake("a colon behind the scheme", lambda c: header("authorization", f"Bearer: {c.bearer.secret}"), "space"),
    mistake("no space behind the scheme", lambda c: header("authorization", f"Bearer{c.bearer.secret}"), "space"),
    mistake("the secret in quotes", lambda c: header("authorization", f'Bearer "{c.bearer.secret}"'), "quotes"),
    mistake("another scheme", lambda c: header("authorization", f"Token {c.bearer.secret}"), "not supported"),
    mistake("the access key", lambda c: header("authorization", f"Bearer {c.bearer.access_key}"), "access key", "public"),
    mistake("the secret mistyped", lambda c: header("authorization", f"Bearer {c.bearer.secret[:-1]}!"), "no token has"),
    mistake("a wrong checksum", lambda c: header("authorization", f"Bearer {c.bearer.secret[:-6]}000000"), "checksum"),
    mistake("the secret cut off", lambda c: header("authorization", f"Bearer {c.bearer.secret[:-1]}"), "missing"),
    mistake("the secret without its prefix", lambda c: header("authorization", f"Bearer {c.bearer.secret[4:]}"), "prefix"),
    mistake("a JSON Web Token", lambda _: header("authorization", "Bearer eyJh.eyJz.c2ln"), "JSON Web Token"),
    mistake("Authorization twice", lambda c: bearer(c.bearer).adding(c.bearer.bearer), "more than one authorization"),
]  # fmt: skip


def without_digest(c: HeldKeys) -> Attempt:
    """Return a signed message with a body that no digest covers."""
    attempt = replacing(INPUT, ' "content-digest"', "", **POST)(c)
    headers = tuple(one for one in attempt.headers if one[0] != "content-digest")
    return Attempt(attempt.target, headers, attempt.method, attempt.body)


TABLE = {"query": QUERY, "message": MESSAGE, "bearer": BEARER}


@pytest.mark.parametrize("form", TABLE)
async def test_a_mistake_of_shape_is_named_without_a_lookup(
    app: Starlette, held_keys: HeldKeys, form: str
) -> None:
    """The answer is the same, byte for byte, for an access key that does not exist, and shows no secret."""
    wrong = {}
    for name, make_attempt, words in TABLE[form]:
        attempt = make_attempt(held_keys)
        with wire.listening() as commands:
            answer = await attempt.send(app, ("x-request-id", "same"))
            other = await renamed(attempt, held_keys.signer, held_keys.unknown).send(
                app, ("x-request-id", "same")
            )
        assert_problem(answer, 401, "unauthenticated")
        detail = answer.json["detail"]
        if commands or other.body != answer.body or not all(word in detail for word in words):
            wrong[name] = detail
        assert not [secret for secret in held_keys.secrets if secret[4:20] in answer.body.decode()]

    assert wrong == {}


def renamed(attempt: Attempt, old: HeldKey, new: HeldKey) -> Attempt:
    """Return a request that names another key."""
    return Attempt(
        attempt.target.replace(old.access_key, new.access_key),
        tuple((name, value.replace(old.access_key, new.access_key)) for name, value in attempt.headers),
        attempt.method,
        attempt.body,
    )


@pytest.mark.parametrize(
    "part",
    [*advice.QUERY.values(), *advice.MESSAGE.values(), advice.MAC_OF_QUERY, advice.MAC_OF_MESSAGE, advice.SIGNATURE_INPUT,
     advice.SIGNATURE, advice.COMPONENTS, advice.CONTENT_DIGEST, advice.AUTHORIZATION, advice.NO_CREDENTIAL,
     advice.SIGNED_QUERY_WITHOUT_KEY, advice.access_key_part("key", "lk"), advice.token_part("lk")],
)  # fmt: skip
@pytest.mark.parametrize("unit", [";a=", "a ", "a,", "=:", ")", ") ", '"', "(", "s_", "; ", "A", "&key"])
def test_a_long_text_costs_little(part: advice.CredentialPart, unit: str) -> None:
    """No pattern takes a time that grows fast with the length of what a client sends."""
    began = time.perf_counter()
    part.advice(f"sig1=({unit * 30_000}")

    assert time.perf_counter() - began < 0.2


def test_no_advice_ends_without_a_full_stop() -> None:
    for part in (*advice.QUERY.values(), *advice.MESSAGE.values(), advice.MAC_OF_QUERY, advice.SIGNATURE):
        assert part.expected.endswith(".")
        assert [words for _, words in part.looks if not words.endswith(".")] == []
