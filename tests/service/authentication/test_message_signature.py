import base64
import hashlib
import hmac
import itertools
import json
import random
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import http_message_signatures as judge
import msgspec
import pytest
from http_message_signatures.algorithms import HMAC_SHA256
from hypothesis import given
from hypothesis import strategies as st

from latchkey.service.authentication.wire.credentials import AccessKey, Secret, new_secret
from latchkey.service.authentication.wire.extraction import Unauthenticated
from latchkey.service.authentication.wire.message_signature import (
    EMPTY_SHA256,
    MessageSignature,
    component_values,
    is_current,
    missing_coverage,
    parse,
    proves,
    sign_message,
    signature_base,
)

VECTORS = [
    pytest.param(vector, id=vector["name"])
    for vector in json.loads((Path(__file__).parents[2] / "vectors.json").read_text(encoding="utf-8"))
    if vector["form"] == "message"
]
ACCESS_KEY = AccessKey("lka_0000000000000000000000")
SECRET = Secret("lks_00000000000000000000000000000000000000000003GTfko")
NOW = 1_700_000_000
NONCE = "n0nce-0123456789abcdef"
BODY = b'{"sku":"A1","qty":2}'
DIGEST = "sha-256=:ERL47/EOLw6RtheS54OgHs/od+QhRqhIwql2BA+1A9Q=:"
OTHER_DIGEST = f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"
IDEMPOTENCY_KEY = '"8e03978e-40d5-43e8-bc93-6894a57f9324"'

PLAIN = '"@method" "@authority" "@path" "@query"'
FULL = f'{PLAIN} "content-type" "content-digest" "idempotency-key"'
CREATED, KEYID, NONCED = f"created={NOW}", f'keyid="{ACCESS_KEY}"', f'nonce="{NONCE}"'
TAGGED = 'tag="latchkey-v1"'
PARAMETERS = f";{CREATED};{KEYID};{NONCED};{TAGGED}"


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it reaches the service."""

    method: str = "POST"
    scheme: str = "https"
    raw_path: bytes = b"/v1/orders"
    query_string: bytes = b"dry_run=true"
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = BODY

    def but(self, **changes: Any) -> "Sent":
        return msgspec.structs.replace(self, **changes)

    def values(self) -> dict[str, str]:
        return component_values(
            method=self.method,
            scheme=self.scheme,
            raw_path=self.raw_path,
            query_string=self.query_string,
            headers=self.headers,
        )

    def parsed(self) -> MessageSignature:
        return parse(self.headers, self.values())


def accepted(sent: Sent, secret: Secret = SECRET, now: float = NOW) -> bool:
    """Return whether all checks pass, in their order, including that of the body."""
    try:
        signature = sent.parsed()
    except Unauthenticated:
        return False
    return (
        not missing_coverage(signature, sent.values(), bool(sent.body))
        and proves(signature, secret)
        and is_current(signature, now, 60)
        and signature.content_sha256 == hashlib.sha256(sent.body).digest()
    )


def fields(headers: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())


def signed(
    components: str = FULL,
    parameters: str = PARAMETERS,
    values: dict[str, str] | None = None,
    **headers: str | None,
) -> Sent:
    """Return a signature of any content, right or wrong, so that only the shape can be the reason of a refusal."""
    own = {"content-type": "application/json", "content-digest": DIGEST, "idempotency-key": IDEMPOTENCY_KEY}
    own.update({name.replace("_", "-"): value for name, value in headers.items()})
    covered = {
        "@method": "POST",
        "@authority": "api.example.com",
        "@path": "/v1/orders",
        "@query": "?dry_run=true",
        **own,
        **(values or {}),
    }
    params = f"({components}){parameters}"
    lines = [f"{name}: {covered.get(name.strip(chr(34)), '')}" for name in components.split(" ")]
    proof = mac("\n".join([*lines, f'"@signature-params": {params}']))
    sent = {
        "host": "api.example.com",
        **own,
        "signature-input": f"sig1={params}",
        "signature": f"sig1=:{proof}:",
    }
    return Sent(headers=fields({name: value for name, value in sent.items() if value is not None}))


def replaced(sent: Sent, **headers: str) -> Sent:
    """Return the request with other values in some of its headers."""
    changed = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return sent.but(headers=tuple((name, changed.get(name, value)) for name, value in sent.headers))


def mac(base: str, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), base.encode(), "sha256")).decode()


# Golden vectors


@pytest.mark.parametrize("vector", VECTORS)
def test_golden_vectors_prove_their_secret(vector: dict[str, Any]) -> None:
    sent = Sent(
        method=vector["method"],
        raw_path=vector["raw_path"].encode(),
        query_string=vector["query_string"].encode(),
        headers=fields(
            {
                "host": vector["authority"],
                **vector["headers"],
                "signature-input": vector["signature_input"],
                "signature": vector["signature"],
            }
        ),
        body=vector["body"].encode(),
    )
    signature = sent.parsed()

    assert accepted(sent, Secret(vector["secret"]))
    assert not accepted(sent, new_secret("lk"))
    assert signature.signed == vector["signature_base"]
    assert (signature.access_key, signature.created, signature.nonce) == (ACCESS_KEY, NOW, NONCE)


@pytest.mark.parametrize("vector", VECTORS)
def test_golden_vectors_are_signed_alike(vector: dict[str, Any]) -> None:
    assert sign_message(
        Secret(vector["secret"]),
        ACCESS_KEY,
        NOW,
        method=vector["method"],
        scheme="https",
        authority=vector["authority"],
        raw_path=vector["raw_path"],
        query_string=vector["query_string"],
        nonce=NONCE,
        body=vector["body"].encode() or None,
        content_type=vector["headers"].get("content-type"),
        idempotency_key=vector["headers"].get("idempotency-key"),
    ) == {
        **vector["headers"],
        "signature-input": vector["signature_input"],
        "signature": vector["signature"],
    }


def test_the_vectors_of_the_message_form_are_all_here() -> None:
    assert len(VECTORS) == 3


def test_the_example_of_the_standard_comes_out() -> None:
    """RFC 9421, appendix B.2.5."""
    shared_secret = base64.b64decode(
        "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
    )
    base = signature_base(
        ("date", "@authority", "content-type"),
        {
            "content-type": "application/json",
            "date": "Tue, 20 Apr 2021 02:07:55 GMT",
            "@authority": "example.com",
            "@method": "POST",
        },
        '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
    )

    assert base == (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        '"@authority": example.com\n'
        '"content-type": application/json\n'
        '"@signature-params": ("date" "@authority" "content-type")'
        ';created=1618884473;keyid="test-shared-secret"'
    )
    proof = base64.b64encode(hmac.digest(shared_secret, base.encode(), "sha256"))
    assert proof == b"pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="


# An independent implementation


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
def test_what_is_signed_here_verifies_here_and_there(call: dict[str, Any], nonce: str) -> None:
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
def test_what_is_signed_there_verifies_here(
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
    call = {"method": "POST", "scheme": "https", "authority": "a", "raw_path": "/", "body": BODY}
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


# The content of a signature


def test_everything_that_a_signature_says_is_read() -> None:
    signature = signed(parameters=f'{PARAMETERS};expires={NOW + 5};alg="hmac-sha256"').parsed()

    assert signature.label == "sig1"
    assert (signature.access_key, signature.nonce) == (ACCESS_KEY, NONCE)
    assert (signature.created, signature.expires) == (NOW, NOW + 5)
    assert signature.components == tuple(FULL.replace('"', "").split(" "))
    assert signature.content_sha256 == hashlib.sha256(BODY).digest()


def test_without_a_digest_the_body_must_be_empty() -> None:
    signature = signed(PLAIN, content_type=None, content_digest=None, idempotency_key=None).parsed()

    assert signature.content_sha256 == EMPTY_SHA256 == hashlib.sha256(b"").digest()
    assert signature.expires is None


@pytest.mark.parametrize("order", list(itertools.permutations([CREATED, KEYID, NONCED, TAGGED])), ids=repr)
def test_parameters_come_in_any_order(order: tuple[str, ...]) -> None:
    assert accepted(signed(parameters=";" + ";".join(order)))


@pytest.mark.parametrize("turn", range(7))
def test_components_come_in_any_order(turn: int) -> None:
    names = FULL.split(" ")

    assert accepted(signed(" ".join(names[turn:] + names[:turn])))


@pytest.mark.parametrize("label", ["s", "sig-b25", "*", "a_b.c*d-1", "s" * 100])
def test_the_label_may_be_any_key(label: str) -> None:
    sent = signed()
    sent = sent.but(
        headers=tuple((name, value.replace(b"sig1", label.encode())) for name, value in sent.headers)
    )

    assert accepted(sent)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        pytest.param({"raw_path": b""}, {"@path": "/"}, id="an empty path is a slash"),
        pytest.param({"raw_path": b"/a%2Fb"}, {"@path": "/a%2Fb"}, id="escapes stay"),
        pytest.param({"query_string": b""}, {"@query": "?"}, id="no query is a question mark"),
        pytest.param({"query_string": b"a+b&c=%ff?"}, {"@query": "?a+b&c=%ff?"}, id="the query as received"),
        pytest.param({"method": "HEAD"}, {"@method": "HEAD"}, id="HEAD signs as HEAD"),
        pytest.param({"method": "get"}, {"@method": "get"}, id="methods differ by case"),
    ],
)
def test_the_request_as_received_is_what_must_be_covered(
    changes: dict[str, Any], values: dict[str, str]
) -> None:
    assert values.items() <= signed().but(**changes).values().items()


@pytest.mark.parametrize(
    ("scheme", "host", "authority"),
    [
        pytest.param("https", "API.Example.COM", "api.example.com", id="in lower case"),
        pytest.param("https", "a:443", "a", id="default port of https"),
        pytest.param("http", "a:80", "a", id="default port of http"),
        pytest.param("https", "a:80", "a:80", id="another scheme's port"),
        pytest.param("http", "a:443", "a:443", id="the other way round"),
        pytest.param("https", "a:8443", "a:8443", id="another port"),
        pytest.param("https", "a:", "a", id="an empty port"),
        pytest.param("https", "[::1]", "[::1]", id="IPv6"),
        pytest.param("https", "[2001:DB8::1]:443", "[2001:db8::1]", id="IPv6 with a port"),
    ],
)
def test_the_authority_is_the_host_without_its_default_port(scheme: str, host: str, authority: str) -> None:
    assert replaced(signed(), host=host).but(scheme=scheme).values()["@authority"] == authority


def test_the_authority_may_be_handed_in() -> None:
    sent = replaced(signed(), host="internal:8000")
    values = component_values(
        method=sent.method,
        scheme="http",
        raw_path=sent.raw_path,
        query_string=sent.query_string,
        headers=sent.headers,
        public_authority="API.example.com",
    )

    assert values["@authority"] == "api.example.com"
    assert proves(parse(sent.headers, values), SECRET)


def test_white_space_around_a_header_is_no_part_of_it() -> None:
    sent = signed()

    assert accepted(sent.but(headers=tuple((name, b" \t" + value + b"\t ") for name, value in sent.headers)))


# Coverage


@pytest.mark.parametrize("name", [name.strip('"') for name in FULL.split(" ")])
def test_each_component_must_be_covered(name: str) -> None:
    sent = signed(" ".join(one for one in FULL.split(" ") if one != f'"{name}"'))

    assert missing_coverage(sent.parsed(), sent.values(), has_body=True) == (name,)
    assert proves(sent.parsed(), SECRET)
    assert not accepted(sent)


def test_a_body_asks_for_a_digest_that_is_not_there() -> None:
    sent = signed(f'{PLAIN} "content-type"', content_digest=None, idempotency_key=None)

    assert missing_coverage(sent.parsed(), sent.values(), has_body=True) == ("content-digest",)
    assert missing_coverage(sent.parsed(), sent.values(), has_body=False) == ()


@pytest.mark.parametrize(
    "components",
    [
        pytest.param("", id="none"),
        pytest.param(f'{FULL} "@method"', id="a derived one twice"),
        pytest.param(f'{FULL} "content-type"', id="a header twice"),
        pytest.param(f'{FULL} "host"', id="a header that is not covered here"),
        pytest.param(f'{FULL} "date"', id="a header that is not there"),
        pytest.param(f'{FULL} "signature"', id="the signature"),
        pytest.param(f'{FULL} "@signature-params"', id="the parameters"),
        pytest.param(f'{FULL} "@target-uri"', id="another derived one"),
        pytest.param(f'{FULL} "@nothing"', id="a derived one that nobody knows"),
        pytest.param(FULL.replace('"@method"', '"@METHOD"'), id="upper case"),
        pytest.param(FULL.replace('"content-type"', '"Content-Type"'), id="a header in upper case"),
        pytest.param(FULL.replace('"@method"', "@method"), id="no quotes"),
        pytest.param(FULL.replace('"@method"', "method"), id="a token"),
        pytest.param(FULL.replace('"@method"', ":AA==:"), id="a byte sequence"),
        pytest.param(FULL.replace('"@method"', '""'), id="an empty name"),
        pytest.param(FULL.replace('"@method"', '"@method";req'), id="of a request"),
        pytest.param(FULL.replace('"content-type"', '"content-type";sf'), id="as a structured field"),
        pytest.param(FULL.replace('"content-type"', '"content-type";bs'), id="as bytes"),
        pytest.param(FULL.replace('"content-type"', '"content-type";tr'), id="of the trailer"),
        pytest.param(FULL.replace('"content-digest"', '"content-digest";key="sha-256"'), id="a member"),
        pytest.param(FULL.replace('"@query"', '"@query-param";name="dry_run"'), id="a query parameter"),
        pytest.param(FULL.replace(" ", "  "), id="two spaces"),
        pytest.param(f" {FULL}", id="space in front"),
        pytest.param(FULL.replace(" ", ", "), id="commas"),
    ],
)
def test_other_components_are_refused_even_when_they_are_signed(components: str) -> None:
    with pytest.raises(Unauthenticated):
        signed(components).parsed()


@pytest.mark.parametrize("name", ["content-type", "content-digest", "idempotency-key"])
def test_a_component_whose_header_is_not_there_is_refused(name: str) -> None:
    sent = signed(**{name.replace("-", "_"): None})

    with pytest.raises(Unauthenticated, match="a component that the request has not"):
        sent.parsed()


# Shape


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param("", id="none"),
        pytest.param(PARAMETERS.replace(f";{CREATED}", ""), id="created: missing"),
        pytest.param(PARAMETERS.replace(str(NOW), "-1"), id="created: minus"),
        pytest.param(PARAMETERS.replace(str(NOW), "+1700000000"), id="created: plus"),
        pytest.param(PARAMETERS.replace(str(NOW), "01700000000"), id="created: a zero in front"),
        pytest.param(PARAMETERS.replace(str(NOW), "1700000000.0"), id="created: fraction"),
        pytest.param(PARAMETERS.replace(str(NOW), "1_700_000_000"), id="created: underscores"),
        pytest.param(PARAMETERS.replace(str(NOW), "1234567890123"), id="created: thirteen digits"),
        pytest.param(PARAMETERS.replace(str(NOW), "9" * 5000), id="created: 5000 digits"),
        pytest.param(PARAMETERS.replace(str(NOW), f'"{NOW}"'), id="created: a string"),
        pytest.param(PARAMETERS.replace(str(NOW), f"@{NOW}"), id="created: a date"),
        pytest.param(PARAMETERS.replace(str(NOW), ""), id="created: empty"),
        pytest.param(PARAMETERS.replace(f"={NOW}", ""), id="created: no value"),
        pytest.param(PARAMETERS.replace(f";{KEYID}", ""), id="keyid: missing"),
        pytest.param(PARAMETERS.replace(KEYID, 'keyid=""'), id="keyid: empty"),
        pytest.param(PARAMETERS.replace(KEYID, f"keyid={ACCESS_KEY}"), id="keyid: a token"),
        pytest.param(PARAMETERS.replace(KEYID, 'keyid="a b"'), id="keyid: space"),
        pytest.param(PARAMETERS.replace(KEYID, r'keyid="a\"b"'), id="keyid: an escape"),
        pytest.param(PARAMETERS.replace(KEYID, "keyid"), id="keyid: no value"),
        pytest.param(PARAMETERS.replace(f";{NONCED}", ""), id="nonce: missing"),
        pytest.param(PARAMETERS.replace(NONCE, ""), id="nonce: empty"),
        pytest.param(PARAMETERS.replace(NONCE, "a" * 15), id="nonce: too short"),
        pytest.param(PARAMETERS.replace(NONCE, "a" * 65), id="nonce: too long"),
        pytest.param(PARAMETERS.replace(NONCE, "a" * 16 + "+"), id="nonce: another character"),
        pytest.param(PARAMETERS.replace(f'"{NONCE}"', "a" * 16), id="nonce: a token"),
        pytest.param(PARAMETERS.replace(f'"{NONCE}"', "1234567890123456"), id="nonce: an integer"),
        pytest.param(PARAMETERS.replace(f'"{NONCE}"', ":" + "A" * 16 + ":"), id="nonce: a byte sequence"),
        pytest.param(PARAMETERS.replace(f";{TAGGED}", ""), id="tag: missing"),
        pytest.param(PARAMETERS.replace("-v1", "-v2"), id="tag: another"),
        pytest.param(PARAMETERS.replace("-v1", "-v1 "), id="tag: space"),
        pytest.param(PARAMETERS.replace("latchkey-v1", "Latchkey-v1"), id="tag: upper case"),
        pytest.param(PARAMETERS.replace('"latchkey-v1"', "latchkey-v1"), id="tag: a token"),
        pytest.param(f'{PARAMETERS};alg="hmac-sha512"', id="alg: another"),
        pytest.param(f'{PARAMETERS};alg="ed25519"', id="alg: asymmetric"),
        pytest.param(f'{PARAMETERS};alg="none"', id="alg: none"),
        pytest.param(f'{PARAMETERS};alg=""', id="alg: empty"),
        pytest.param(f'{PARAMETERS};alg="HMAC-SHA256"', id="alg: upper case"),
        pytest.param(f"{PARAMETERS};alg=hmac-sha256", id="alg: a token"),
        pytest.param(f"{PARAMETERS};alg", id="alg: no value"),
        pytest.param(f"{PARAMETERS};expires=", id="expires: empty"),
        pytest.param(f"{PARAMETERS};expires", id="expires: no value"),
        pytest.param(f"{PARAMETERS};expires=1.5", id="expires: fraction"),
        pytest.param(f'{PARAMETERS};expires="{NOW}"', id="expires: a string"),
        pytest.param(f"{PARAMETERS};expires=0{NOW}", id="expires: a zero in front"),
        pytest.param(f"{PARAMETERS};x=1", id="one that nobody knows"),
        pytest.param(f'{PARAMETERS};Alg="hmac-sha256"', id="upper case"),
        pytest.param(f"{PARAMETERS};{CREATED}", id="created: twice"),
        pytest.param(f"{PARAMETERS};{KEYID}", id="keyid: twice"),
        pytest.param(f"{PARAMETERS};{NONCED}", id="nonce: twice"),
        pytest.param(f"{PARAMETERS};{TAGGED}", id="tag: twice"),
        pytest.param(f'{PARAMETERS};tag="of-a-proxy"', id="tag: and another"),
        pytest.param(f";expires=1;expires=2{PARAMETERS}", id="expires: twice"),
        pytest.param(PARAMETERS.replace(";", "; "), id="spaces"),
        pytest.param(f"{PARAMETERS};", id="a semicolon at the end"),
    ],
)
def test_parameters_of_the_wrong_shape_are_refused_even_when_they_are_signed(parameters: str) -> None:
    with pytest.raises(Unauthenticated):
        signed(parameters=parameters).parsed()


INPUT = f"sig1=({FULL}){PARAMETERS}"
PROOF = dict(signed().headers)[b"signature"].decode().removeprefix("sig1=:").removesuffix(":")
OTHER = f"({PLAIN});{CREATED}"


@pytest.mark.parametrize(
    ("signature_input", "signature"),
    [
        pytest.param(INPUT, f"sig1=:{PROOF}:, sig1=:{PROOF}:", id="the signature twice"),
        pytest.param(f"{INPUT}, {INPUT}", f"sig1=:{PROOF}:", id="the input twice"),
        pytest.param(f"{INPUT}, {INPUT}", f"sig1=:{PROOF}:, sig1=:{PROOF}:", id="both twice"),
        pytest.param(
            f"{INPUT}, {INPUT.replace('sig1', 'sig2')}",
            f"sig1=:{PROOF}:, sig2=:{PROOF}:",
            id="two with the tag",
        ),
        pytest.param(INPUT, f"sig2=:{PROOF}:", id="another label"),
        pytest.param(INPUT, f"sig1=:{PROOF}:, sig2=:{PROOF}:", id="a signature without an input"),
        pytest.param(f"{INPUT}, sig2={OTHER}", f"sig1=:{PROOF}:", id="an input without a signature"),
        pytest.param(f"sig2={OTHER}", f"sig2=:{PROOF}:", id="only another's"),
        pytest.param(
            f"{INPUT}, sig2={OTHER};a;a", f"sig1=:{PROOF}:, sig2=:AA==:", id="another's, ill-formed"
        ),
        pytest.param(INPUT, "", id="signature: empty"),
        pytest.param(INPUT, PROOF, id="signature: only base64"),
        pytest.param(INPUT, f'sig1="{PROOF}"', id="signature: a string"),
        pytest.param(INPUT, f"sig1=:{PROOF}", id="signature: not closed"),
        pytest.param(INPUT, f"sig1=:{PROOF[:-1]}:", id="signature: no padding"),
        pytest.param(INPUT, f"sig1=:{PROOF}:;a=1", id="signature: a parameter"),
        pytest.param(INPUT, f"sig1=:{PROOF}:,", id="signature: comma at the end"),
        pytest.param(INPUT, "sig1=::", id="signature: no bytes"),
        pytest.param(INPUT, f"sig1=:{base64.b64encode(bytes(31)).decode()}:", id="signature: 31 bytes"),
        pytest.param(INPUT, f"sig1=:{base64.b64encode(bytes(33)).decode()}:", id="signature: 33 bytes"),
        pytest.param(INPUT, f"sig1=:{PROOF}:\n", id="signature: newline at the end"),
        pytest.param("", f"sig1=:{PROOF}:", id="input: empty"),
        pytest.param("sig1", f"sig1=:{PROOF}:", id="input: only a label"),
        pytest.param("sig1=1", f"sig1=:{PROOF}:", id="input: an integer"),
        pytest.param(INPUT.replace("sig1=", ""), f"sig1=:{PROOF}:", id="input: no label"),
        pytest.param(INPUT.replace("sig1", "Sig1"), f"Sig1=:{PROOF}:", id="a label in upper case"),
        pytest.param(INPUT.replace("sig1=", "sig1 ="), f"sig1=:{PROOF}:", id="input: space"),
        pytest.param(f"{INPUT},", f"sig1=:{PROOF}:", id="input: comma at the end"),
        pytest.param(f"{INPUT}\n", f"sig1=:{PROOF}:", id="input: newline at the end"),
        pytest.param(f"{INPUT}\x00", f"sig1=:{PROOF}:", id="input: null character"),
        pytest.param(f"{INPUT}\xff", f"sig1=:{PROOF}:", id="input: not ASCII"),
        pytest.param(
            INPUT.replace('"@path"', '"@p\xe4th"'), f"sig1=:{PROOF}:", id="a component outside ASCII"
        ),
    ],
)
def test_headers_of_the_wrong_shape_are_refused(signature_input: str, signature: str) -> None:
    with pytest.raises(Unauthenticated):
        replaced(signed(), signature_input=signature_input, signature=signature).parsed()


def test_the_headers_of_these_cases_are_right_otherwise() -> None:
    assert accepted(replaced(signed(), signature_input=INPUT, signature=f"sig1=:{PROOF}:"))
    assert accepted(
        replaced(signed(), signature_input=f"sig2={OTHER} , {INPUT}", signature=f"sig1=:{PROOF}:,sig2=:AA==:")
    )


def test_the_last_character_of_the_signature_has_one_spelling() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spellings = [f"sig1=:{PROOF[:-2]}{last}=:" for last in alphabet]

    assert [one for one in spellings if accepted(replaced(signed(), signature=one))] == [f"sig1=:{PROOF}:"]


@pytest.mark.parametrize(
    "digest",
    [
        pytest.param("", id="empty"),
        pytest.param(DIGEST.upper(), id="upper case"),
        pytest.param("sha-256", id="no value"),
        pytest.param(DIGEST.replace(":", ""), id="no colons"),
        pytest.param(DIGEST.replace(":", '"'), id="a string"),
        pytest.param(f"sha-256={hashlib.sha256(BODY).hexdigest()}", id="hexadecimal"),
        pytest.param(DIGEST.replace("=:", ":", 2), id="no equals sign"),
        pytest.param(DIGEST[:-2] + ":", id="no padding"),
        pytest.param(DIGEST.replace("9Q=", "9R="), id="bits that mean nothing"),
        pytest.param(f"sha-256=:{base64.b64encode(bytes(31)).decode()}:", id="31 bytes"),
        pytest.param(f"sha-256=:{base64.b64encode(bytes(33)).decode()}:", id="33 bytes"),
        pytest.param("sha-256=::", id="no bytes"),
        pytest.param(f"{DIGEST}, {DIGEST}", id="twice"),
        pytest.param(f"{DIGEST}, {OTHER_DIGEST}", id="two of them"),
        pytest.param(DIGEST.replace("sha-256", "sha-512"), id="another algorithm"),
        pytest.param(
            f"{DIGEST}, sha-512=:{base64.b64encode(hashlib.sha512(BODY).digest()).decode()}:",
            id="another algorithm beside it",
        ),
        pytest.param(f"{DIGEST};a=1", id="a parameter"),
        pytest.param(f"{DIGEST},", id="comma at the end"),
        pytest.param("sha-256=:\xff:", id="not ASCII"),
    ],
)
def test_a_digest_of_the_wrong_shape_is_refused_even_when_it_is_signed(digest: str) -> None:
    with pytest.raises(Unauthenticated, match="content-digest"):
        signed(content_digest=digest).parsed()


@pytest.mark.parametrize("name", ["host", "content-type", "idempotency-key"])
@pytest.mark.parametrize("again", [None, b"", b"x"], ids=["the same", "empty", "another"])
def test_each_header_that_is_no_dictionary_stands_at_most_once(name: str, again: bytes | None) -> None:
    sent = signed()
    value = dict(sent.headers)[name.encode()] if again is None else again

    for headers in ((*sent.headers, (name.encode(), value)), ((name.encode(), value), *sent.headers)):
        with pytest.raises(Unauthenticated, match=f"more than one {name} header"):
            sent.but(headers=headers).parsed()


@pytest.mark.parametrize(
    "name, reason",
    [
        ("content-digest", "a content-digest header that is not one SHA-256"),
        ("signature", "an ill-formed header"),
        ("signature-input", "an ill-formed header"),
    ],
)
@pytest.mark.parametrize("again", [None, b"", b"x", b","], ids=["the same", "empty", "another", "a comma"])
def test_lines_of_a_dictionary_are_one_dictionary(name: str, reason: str, again: bytes | None) -> None:
    """Repeated members, empty members, and invalid members are refused as they are in one line."""
    sent = signed()
    value = dict(sent.headers)[name.encode()] if again is None else again

    for headers in ((*sent.headers, (name.encode(), value)), ((name.encode(), value), *sent.headers)):
        with pytest.raises(Unauthenticated, match=reason):
            sent.but(headers=headers).parsed()


OF_A_PROXY = (
    (
        b"signature-input",
        b'proxy=("@method" "content-digest";req);created=1;keyid="edge";alg="rsa-pss-sha512"',
    ),
    (b"signature", b"proxy=:" + base64.b64encode(bytes(256)) + b":"),
)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_a_proxy_adds_lines_of_its_own(order: tuple[int, ...]) -> None:
    """RFC 9421, section 4.1: its lines may be before, between or after those of the client."""
    sent = signed()
    others = tuple(one for one in sent.headers if not one[0].startswith(b"signature"))
    lines = (*(one for one in sent.headers if one[0].startswith(b"signature")), *OF_A_PROXY)

    assert accepted(sent.but(headers=(*others, *(lines[place] for place in order))))


def test_three_lines_and_white_space_around_them_are_one_field() -> None:
    sent = signed()
    added = tuple(
        (name, b" \t" + value.replace(b"proxy=", label) + b"\t ")
        for name, value in OF_A_PROXY
        for label in (b"a=", b"b=")
    )

    assert accepted(sent.but(headers=(*added[::2], *sent.headers, *added[1::2])))


@pytest.mark.parametrize("tag", [TAGGED, 'tag="another"'], ids=["ours", "another"])
def test_a_label_in_two_lines_is_refused(tag: str) -> None:
    """This holds even if the other signature is not for this service, because readers could choose different ones."""
    sent = signed()
    again = (
        (b"signature-input", f"sig1=();{CREATED};{tag}".encode()),
        (b"signature", f"sig1=:{mac('')}:".encode()),
    )

    assert not accepted(sent.but(headers=(*sent.headers, *again)))
    assert not accepted(sent.but(headers=(*again, *sent.headers)))


def test_two_signatures_for_this_service_are_refused_in_two_lines_too() -> None:
    sent = signed()
    again = tuple(
        (name, value.replace(b"sig1=", b"sig2=")) for name, value in sent.headers if b"signature" in name
    )

    with pytest.raises(Unauthenticated, match="more than one"):
        sent.but(headers=(*sent.headers, *again)).parsed()


def test_lines_are_too_long_together() -> None:
    sent = signed()
    added = tuple((b"signature", b"p%d=:%s:" % (n, base64.b64encode(bytes(256)))) for n in range(7))

    with pytest.raises(Unauthenticated, match="a signature header that is too long"):
        sent.but(headers=(*sent.headers, *added)).parsed()


def test_other_headers_may_repeat() -> None:
    sent = signed()

    assert accepted(sent.but(headers=(*sent.headers, (b"accept", b"a"), (b"accept", b"b"))))


@pytest.mark.parametrize("name", [b"host", b"signature", b"signature-input"])
def test_what_the_form_needs_must_be_there(name: bytes) -> None:
    sent = signed()

    with pytest.raises(Unauthenticated):
        sent.but(headers=tuple(header for header in sent.headers if header[0] != name)).parsed()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method": ""}, id="method: empty"),
        pytest.param({"method": "GET\n"}, id="method: newline"),
        pytest.param({"method": "GÉT"}, id="method: not ASCII"),
        pytest.param({"raw_path": b"v1"}, id="path: relative"),
        pytest.param({"raw_path": b"*"}, id="path: an asterisk"),
        pytest.param({"raw_path": b"http://a/"}, id="path: a whole URL"),
        pytest.param({"raw_path": b"/a b"}, id="path: space"),
        pytest.param({"raw_path": b'/\n"@query": ?'}, id="path: a line of its own"),
        pytest.param({"raw_path": b"/\xff"}, id="path: not ASCII"),
        pytest.param({"query_string": b"a b"}, id="query: space"),
        pytest.param({"query_string": b"a\n"}, id="query: newline at the end"),
        pytest.param({"query_string": b"\xff"}, id="query: not ASCII"),
        pytest.param({"raw_path": b"/" + b"a" * 65_536}, id="path: 64 kB"),
        pytest.param({"query_string": b"a" * 65_536}, id="query: 64 kB"),
    ],
)
def test_a_request_that_cannot_be_signed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated, match="a value of @"):
        signed().but(**changes).parsed()


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        ":80",
        "a b",
        "a,b",
        "a/b",
        "user@a",
        "a:b",
        "a:80:80",
        "[::1",
        "::1",
        "a\n",
        "\xe4",
        "a" * 65_536,
    ],
    ids=lambda host: repr(host[:9]),
)
def test_a_host_of_the_wrong_shape_is_refused(host: str) -> None:
    with pytest.raises(Unauthenticated):
        replaced(signed(), host=host).parsed()


@pytest.mark.parametrize(
    "value", ["a\nb", "a\r\n b", "\x00", "\x7f", "\xe4", "a" * 65_536], ids=lambda v: repr(v[:9])
)
@pytest.mark.parametrize("name", ["content_type", "content_digest", "idempotency_key"])
def test_a_header_that_cannot_be_signed_is_refused(name: str, value: str) -> None:
    with pytest.raises(Unauthenticated, match=name.replace("_", "-")):
        replaced(signed(), **{name: value}).parsed()


@pytest.mark.parametrize(
    ("signature_input", "signature"),
    [
        pytest.param("sig1=(" + '"@path" ' * 8192, f"sig1=:{PROOF}:", id="components"),
        pytest.param(INPUT + ";a" * 32_768, f"sig1=:{PROOF}:", id="parameters"),
        pytest.param(INPUT + ", a=()" * 10_000, f"sig1=:{PROOF}:", id="inputs"),
        pytest.param(INPUT, "sig1=:" + "A" * 65_536, id="base64"),
        pytest.param(INPUT, f"sig1=:{PROOF}:" + ", a=:AA==:" * 6000, id="signatures"),
    ],
)
def test_64_kb_are_refused_soon(signature_input: str, signature: str) -> None:
    sent = replaced(signed(), signature_input=signature_input, signature=signature)
    begin = time.process_time()

    with pytest.raises(Unauthenticated, match="too long"):
        sent.parsed()

    assert time.process_time() - begin < 0.1  # some microseconds


@pytest.mark.parametrize(("length", "taken"), [(2048, True), (2049, False)], ids=str)
def test_there_is_room_for_other_signatures_up_to_2_kb(length: int, taken: bool) -> None:
    label = "a" * (length - len(f"{INPUT}, =()"))
    sent = replaced(signed(), signature_input=f"{INPUT}, {label}=()", signature=f"sig1=:{PROOF}:, {label}=::")

    assert accepted(sent) is taken


# The clock


@pytest.mark.parametrize(
    ("seconds", "inside"),
    [
        (-61, False),
        (-60.5, False),
        (-60, True),
        (-1, True),
        (0, True),
        (60, True),
        (60.5, False),
        (61, False),
    ],
    ids=str,
)
def test_both_edges_of_the_clock_window_are_inside(seconds: float, inside: bool) -> None:
    assert accepted(signed(), now=NOW + seconds) is inside


@pytest.mark.parametrize(
    ("expires_in", "seconds", "inside"),
    [
        pytest.param(10, 10, True, id="the last moment"),
        pytest.param(10, 10.5, False, id="just after"),
        pytest.param(10, -60, True, id="made in the future"),
        pytest.param(3600, 61, False, id="the window is not widened"),
        pytest.param(-1, 0, False, id="born expired"),
    ],
)
def test_a_signature_that_expires_holds_until_then(expires_in: int, seconds: float, inside: bool) -> None:
    sent = signed(parameters=f"{PARAMETERS};expires={NOW + expires_in}")

    assert accepted(sent, now=NOW + seconds) is inside


# Mutations: a signature with any change proves nothing.

WHOLE = signed()
PARTS = ["method", "raw_path", "query_string", "body", *(name.decode() for name, _ in WHOLE.headers)]


def part(sent: Sent, name: str) -> bytes:
    if name == "method":
        return sent.method.encode()
    return dict(sent.headers)[name.encode()] if name.encode() in dict(sent.headers) else getattr(sent, name)


def with_part(sent: Sent, name: str, value: bytes) -> Sent:
    if name == "method":
        return sent.but(method=value.decode("latin-1"))
    if name.encode() in dict(sent.headers):
        return sent.but(headers=tuple((n, value if n == name.encode() else v) for n, v in sent.headers))
    return sent.but(**{name: value})


def means_the_same(name: str, one: bytes, other: bytes) -> bool:
    """Return whether two requests differ only in white space around headers, the host's case or its default port.

    None of these has a meaning (RFC 9110, sections 4.2.3 and 5.5).
    """
    if name == "host":
        return one.strip(b" \t").lower() in {other, other + b":", other + b":443"}
    return one.strip(b" \t") == other if name.encode() in dict(WHOLE.headers) else one == other


def test_the_request_that_is_mutated_is_accepted() -> None:
    assert accepted(WHOLE)
    assert len(PARTS) == 10


@pytest.mark.parametrize("name", PARTS)
def test_each_flipped_bit_is_noticed(name: str) -> None:
    right = part(WHOLE, name)
    for place, bit in itertools.product(range(len(right)), range(8)):
        wrong = bytearray(right)
        wrong[place] ^= 1 << bit
        sent = with_part(WHOLE, name, bytes(wrong))

        assert accepted(sent) is means_the_same(name, bytes(wrong), right), (place, bit)


def test_each_flipped_bit_in_the_name_of_a_header_is_noticed() -> None:
    for index, (name, value) in enumerate(WHOLE.headers):
        for place, bit in itertools.product(range(len(name)), range(8)):
            wrong = bytearray(name)
            wrong[place] ^= 1 << bit
            headers = list(WHOLE.headers)
            headers[index] = (bytes(wrong), value)

            assert not accepted(WHOLE.but(headers=tuple(headers)))


@given(st.sampled_from(PARTS), st.data())
def test_bytes_that_are_put_in_taken_out_or_exchanged_are_noticed(name: str, data: st.DataObject) -> None:
    right = part(WHOLE, name)
    begin = data.draw(st.integers(0, len(right)))
    end = data.draw(st.integers(begin, min(begin + 8, len(right))))
    wrong = right[:begin] + data.draw(st.binary(max_size=8)) + right[end:]

    assert accepted(with_part(WHOLE, name, wrong)) is means_the_same(name, wrong, right)


@given(st.sampled_from(PARTS), st.sampled_from(PARTS))
def test_a_part_in_another_s_place_is_noticed(one: str, other: str) -> None:
    sent = with_part(with_part(WHOLE, one, part(WHOLE, other)), other, part(WHOLE, one))

    assert accepted(sent) is (one == other)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_is_dropped_or_doubled_is_noticed(name: str) -> None:
    right = part(WHOLE, name)
    header = (name.encode(), right)

    assert not accepted(with_part(WHOLE, name, b""))
    assert not accepted(with_part(WHOLE, name, right * 2))
    assert not accepted(with_part(WHOLE, name, right + b", " + right))
    if header in WHOLE.headers:
        assert not accepted(WHOLE.but(headers=tuple(one for one in WHOLE.headers if one != header)))
        assert not accepted(WHOLE.but(headers=(*WHOLE.headers, header)))


ITEMS = FULL.split(" ")
SETTINGS = PARAMETERS[1:].split(";")


def retold(items: list[str], settings: list[str]) -> Sent:
    """Return the same request and MAC with another input."""
    return replaced(
        WHOLE, signature_input=f"sig1=({' '.join(items)})" + "".join(f";{setting}" for setting in settings)
    )


@pytest.mark.parametrize("index", range(len(ITEMS)), ids=ITEMS)
def test_a_component_that_is_dropped_or_doubled_is_noticed(index: int) -> None:
    assert not accepted(retold(ITEMS[:index] + ITEMS[index + 1 :], SETTINGS))
    assert not accepted(retold([*ITEMS, ITEMS[index]], SETTINGS))


@pytest.mark.parametrize("index", range(len(SETTINGS)), ids=SETTINGS)
def test_a_parameter_that_is_dropped_or_doubled_is_noticed(index: int) -> None:
    assert not accepted(retold(ITEMS, SETTINGS[:index] + SETTINGS[index + 1 :]))
    assert not accepted(retold(ITEMS, [*SETTINGS, SETTINGS[index]]))


@given(st.permutations(ITEMS), st.permutations(SETTINGS))
def test_another_order_than_the_signed_one_is_noticed(items: list[str], settings: list[str]) -> None:
    assert accepted(retold(items, settings)) is (items == ITEMS and settings == SETTINGS)


names = st.sampled_from([name for name, _ in WHOLE.headers])
pieces = st.sampled_from(
    [b"sig1", b"=", b"(", b")", b'"@method"', b" ", b";", b",", b":", PARAMETERS.encode(), b'"']
)
header_values = st.binary() | st.lists(pieces | st.binary(max_size=2), max_size=12).map(b"".join)


@given(
    st.lists(st.tuples(names | st.binary(), header_values), max_size=8),
    st.text(),
    st.binary(),
    st.binary(),
    st.sampled_from(["http", "https", "", "x"]),
)
def test_no_request_upsets_the_checks(
    headers: list[Any], method: str, raw_path: bytes, query_string: bytes, scheme: str
) -> None:
    sent = WHOLE.but(headers=tuple({**dict(WHOLE.headers), **dict(headers)}.items()))
    same = all(means_the_same(name, part(sent, name), part(WHOLE, name)) for name in PARTS)

    assert accepted(sent) is same
    assert not accepted(
        sent.but(
            headers=tuple(headers), method=method, raw_path=raw_path, query_string=query_string, scheme=scheme
        )
    )


# The client's side


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"nonce": "short"}, "nonce", id="nonce"),
        pytest.param({"nonce": NONCE + '";x="'}, "nonce", id="nonce with a quote"),
        pytest.param({"access_key": ""}, "keyid", id="public id"),
        pytest.param({"now": -1}, "created", id="time"),
        pytest.param({"authority": "a b"}, "host", id="authority"),
        pytest.param({"raw_path": "v1"}, "@path", id="relative path"),
        pytest.param({"raw_path": "/é"}, "@path", id="path outside ASCII"),
        pytest.param({"query_string": "a b"}, "@query", id="query with a space"),
        pytest.param({"method": ""}, "@method", id="method"),
        pytest.param({"content_type": "a\nb: c"}, "content-type", id="a header of two lines"),
        pytest.param({"idempotency_key": "é"}, "idempotency-key", id="a header outside ASCII"),
    ],
)
def test_what_cannot_be_signed_is_said(changes: dict[str, Any], sentence: str) -> None:
    call = {"method": "GET", "scheme": "https", "authority": "a", "raw_path": "/", "nonce": NONCE}
    call |= {"access_key": ACCESS_KEY, "now": NOW, **changes}

    with pytest.raises(ValueError, match=f"The call has .*{sentence}"):
        sign_message(SECRET, **call)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(signed(parameters=PARAMETERS.replace(ACCESS_KEY, SECRET)), id="as the public id"),
        pytest.param(signed(parameters=f'{PARAMETERS};x="{SECRET}"'), id="as a parameter"),
        pytest.param(signed(parameters=PARAMETERS.replace(NONCE, SECRET + "!")), id="as the nonce"),
        pytest.param(signed(parameters=f"{PARAMETERS};{SECRET}=1"), id="as the name of a parameter"),
        pytest.param(signed(f'{FULL} "{SECRET.lower()}"'), id="as a component"),
        pytest.param(signed(content_digest=SECRET), id="as the digest"),
        pytest.param(signed(idempotency_key=SECRET), id="as another header"),
        pytest.param(replaced(signed(), signature=f"sig1=:{SECRET}:"), id="as the signature"),
        pytest.param(replaced(signed(), host=f"{SECRET}@a"), id="as the host"),
        pytest.param(signed().but(raw_path=b"/" + SECRET.encode() + b"\n"), id="in the path"),
        pytest.param(signed().but(query_string=SECRET.encode()), id="in the query"),
    ],
)
def test_nothing_shows_what_the_client_sent(sent: Sent) -> None:
    try:
        shown = repr(sent.parsed())
    except Unauthenticated as refusal:
        shown = "".join(traceback.format_exception(refusal)) + repr(refusal)

    assert SECRET.lower() not in shown.lower()
    assert PROOF not in shown
