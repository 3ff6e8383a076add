"""Signed messages of the wrong shape are refused."""

import base64
import hashlib
import itertools
import time
from typing import Any

import pytest

from latchkey.service.authentication.wire.extraction import Unauthenticated
from tests.service.authentication.message_requests import (
    ACCESS_KEY,
    BODY,
    CREATED,
    DIGEST,
    INPUT,
    KEYID,
    NONCE,
    NONCED,
    NOW,
    OTHER_DIGEST,
    PARAMETERS,
    PLAIN,
    PROOF,
    TAGGED,
    accepted,
    mac,
    replaced,
    signed,
)


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
def test_every_required_header_must_be_present(name: bytes) -> None:
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
