"""A signed message: the golden vectors, the content of a signature, its coverage, its clock, and the client's side."""

import base64
import hashlib
import hmac
import itertools
import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from latchkey.service.authentication.wire.credentials import Secret, new_secret
from latchkey.service.authentication.wire.extraction import Unauthenticated
from latchkey.service.authentication.wire.message_signature import (
    EMPTY_SHA256,
    component_values,
    missing_coverage,
    parse,
    proves,
    sign_message,
    signature_base,
)
from tests.service.authentication.message_requests import (
    ACCESS_KEY,
    BODY,
    CREATED,
    FULL,
    KEYID,
    NONCE,
    NONCED,
    NOW,
    PARAMETERS,
    PLAIN,
    PROOF,
    SECRET,
    TAGGED,
    Sent,
    accepted,
    fields,
    replaced,
    signed,
)

VECTORS = [
    pytest.param(vector, id=vector["name"])
    for vector in json.loads((Path(__file__).parents[2] / "vectors.json").read_text(encoding="utf-8"))
    if vector["form"] == "message"
]


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
    absent: dict[str, Any] = {name.replace("-", "_"): None}
    sent = signed(**absent)

    with pytest.raises(Unauthenticated, match="a component that the request has not"):
        sent.parsed()


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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"nonce": "short"}, "nonce", id="nonce"),
        pytest.param({"nonce": NONCE + '";x="'}, "nonce", id="nonce with a quote"),
        pytest.param({"access_key": ""}, "keyid", id="access key"),
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
def test_values_that_cannot_be_signed_are_named(changes: dict[str, Any], sentence: str) -> None:
    call: dict[str, Any] = {
        "method": "GET",
        "scheme": "https",
        "authority": "a",
        "raw_path": "/",
        "nonce": NONCE,
    }
    call |= {"access_key": ACCESS_KEY, "now": NOW, **changes}

    with pytest.raises(ValueError, match=f"The call has .*{sentence}"):
        sign_message(SECRET, **call)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(signed(parameters=PARAMETERS.replace(ACCESS_KEY, SECRET)), id="as the access key"),
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
