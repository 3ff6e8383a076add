"""Signed messages verify with an independent implementation, in both directions."""

import random
from datetime import UTC, datetime
from typing import Any

import http_message_signatures as judge
import msgspec
from http_message_signatures.algorithms import HMAC_SHA256
from hypothesis import given
from hypothesis import strategies as st

from latchkey.service.authentication.wire.credentials import Secret, new_secret
from latchkey.service.authentication.wire.message_signature import (
    sign_message,
)
from tests.service.authentication.message_requests import (
    ACCESS_KEY,
    BODY,
    IDEMPOTENCY_KEY,
    NONCE,
    NOW,
    SECRET,
    Sent,
    accepted,
    fields,
)


class Message(msgspec.Struct):
    """A request as the independent library sees it."""

    method: str
    url: str
    headers: dict[str, str]


def keys(secret: str = SECRET) -> judge.MappingKeyResolver:
    ring = {str(ACCESS_KEY): secret.encode()}
    return judge.MappingKeyResolver(public_keys=ring, private_keys=ring)


calls = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
        "scheme": st.sampled_from(["http", "https"]),
        "authority": st.sampled_from(
            [
                "api.example.com",
                "API.Example.com:443",
                "localhost:8000",
                "a:80",
                "a:",
                "[::1]:8443",
                "127.0.0.1",
            ]
        ),
        "raw_path": st.from_regex(r"/([a-zA-Z0-9._~+&=@:-]|%[0-9A-Fa-f]{2}|/){0,20}", fullmatch=True),
        "query_string": st.sampled_from(["", "q=a%20b", "q=a+b&q=%ff", "a&&b", "q=?"]),
        "body": st.none() | st.binary(),
        "content_type": st.sampled_from([None, "application/json", "text/plain; charset=utf-8", "a\tb"]),
        "idempotency_key": st.sampled_from([None, IDEMPOTENCY_KEY]),
    }
)


nonces = st.from_regex(r"[A-Za-z0-9_-]{16,64}", fullmatch=True)


@given(calls, nonces)
def test_messages_signed_here_verify_here_and_there(call: dict[str, Any], nonce: str) -> None:
    headers = sign_message(SECRET, ACCESS_KEY, NOW + 0.9, nonce=nonce, **call)
    body = call["body"] or b""

    sent = received(call, headers)
    assert accepted(sent)
    assert sent.parsed().nonce == nonce
    verifier = judge.HTTPMessageVerifier(signature_algorithm=HMAC_SHA256, key_resolver=keys())
    [result] = verifier.verify(
        message(call, headers),
        max_age=None,
        expect_tag="latchkey-v1",
        require_components=("@method", "@authority", "@path", "@query"),
        body=body,
    )
    assert result.parameters == {"created": NOW, "keyid": ACCESS_KEY, "nonce": nonce, "tag": "latchkey-v1"}


@given(calls, nonces, st.booleans(), st.sampled_from([None, 0, 3600]), st.randoms())
def test_messages_signed_there_verify_here(
    call: dict[str, Any], nonce: str, include_alg: bool, expires_in: int | None, random: random.Random
) -> None:
    headers = {
        name: call[name.replace("-", "_")]
        for name in ("content-type", "idempotency-key")
        if call[name.replace("-", "_")] is not None
    }
    covered = ["@method", "@authority", "@path", "@query", *headers]
    random.shuffle(covered)
    asked = message(call, headers)
    judge.HTTPMessageSigner(signature_algorithm=HMAC_SHA256, key_resolver=keys()).sign(
        asked,
        key_id=ACCESS_KEY,
        created=datetime.fromtimestamp(NOW, UTC),
        expires=None if expires_in is None else datetime.fromtimestamp(NOW + expires_in, UTC),
        nonce=nonce,
        tag="latchkey-v1",
        include_alg=include_alg,
        covered_component_ids=covered,
        body=call["body"],
    )

    assert accepted(received(call, asked.headers))
    assert not accepted(received(call, asked.headers), new_secret("lk"))


def test_a_signature_that_another_application_added_says_nothing_here() -> None:
    call: dict[str, Any] = {
        "method": "POST",
        "scheme": "https",
        "authority": "a",
        "raw_path": "/",
        "body": BODY,
    }
    asked = message(call, sign_message(SECRET, ACCESS_KEY, NOW, nonce=NONCE, **call))
    judge.HTTPMessageSigner(signature_algorithm=HMAC_SHA256, key_resolver=keys("theirs")).sign(
        asked,
        key_id=ACCESS_KEY,
        tag="of-a-proxy",
        covered_component_ids=('"signature";key="sig1"', '"content-digest";sf'),
        append_if_signature_exists=True,
        use_existing_digest=True,
    )

    assert ", pyhms=" in asked.headers["Signature"]
    assert accepted(received(call, asked.headers))
    assert not accepted(received(call, asked.headers), Secret("theirs"))


def received(call: dict[str, Any], headers: dict[str, str]) -> Sent:
    return Sent(
        method=call["method"],
        scheme=call["scheme"],
        raw_path=call["raw_path"].encode(),
        query_string=call.get("query_string", "").encode(),
        headers=(*fields(headers), (b"host", call["authority"].encode())),
        body=call["body"] or b"",
    )


def message(call: dict[str, Any], headers: dict[str, str]) -> Message:
    query = f"?{call['query_string']}" if call.get("query_string") else ""
    return Message(
        call["method"], f"{call['scheme']}://{call['authority']}{call['raw_path']}{query}", dict(headers)
    )
