import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from latchkey.service.authentication.wire import query_signature
from latchkey.service.authentication.wire.credentials import AccessKey, Secret, new_secret
from latchkey.service.authentication.wire.extraction import RESERVED_PARAMETERS, Unauthenticated
from latchkey.service.authentication.wire.query_signature import (
    QuerySignature,
    covers,
    in_window,
    missing_coverage,
    parse,
    proves,
    sign_query,
)

VECTORS = [
    pytest.param(vector, id=vector["name"])
    for vector in json.loads((Path(__file__).parents[2] / "vectors.json").read_text(encoding="utf-8"))
    if vector["form"] == "query"
]
ACCESS_KEY = AccessKey("lka_0000000000000000000000")
SECRET = Secret("lks_00000000000000000000000000000000000000000003GTfko")
NOW = 1_700_000_000
KEY = b"key=lka_0000000000000000000000"
PLAIN = KEY + b"&timestamp=1700000000"
NONCE = "n0nce-0123456789abcdef"


def mac(query: bytes, secret: str = SECRET) -> bytes:
    return base64.b64encode(hmac.digest(secret.encode(), query, "sha256"))


def signed(query: bytes) -> QuerySignature:
    return parse(query, mac(query))


@pytest.mark.parametrize("vector", VECTORS)
def test_golden_vectors_prove_their_secret(vector: dict[str, str]) -> None:
    query = vector.get("signs_for", vector["query_string"]).encode()
    signature = parse(query, vector["secret_header"].encode())

    assert proves(signature, Secret(vector["secret"]))
    assert not proves(signature, new_secret("lk"))
    assert (signature.access_key, signature.timestamp) == (ACCESS_KEY, NOW)


@pytest.mark.parametrize("vector", VECTORS)
def test_golden_vectors_are_signed_alike(vector: dict[str, str]) -> None:
    query = QueryParams(vector["query_string"])
    rest = vector["query_string"].partition("&q=")[2]

    assert sign_query(
        Secret(vector["secret"]),
        f"q={rest}" if rest else "",
        ACCESS_KEY,
        NOW,
        method=query.get("method"),
        path=query.get("path"),
        body=vector["body"].encode() if "body" in vector else None,
        nonce=query.get("nonce"),
    ) == (vector["query_string"], vector["secret_header"])


def test_the_vectors_of_the_query_form_are_all_here() -> None:
    assert len(VECTORS) == 6


def test_everything_that_a_query_says_is_read() -> None:
    query = PLAIN + f"&nonce={NONCE}&method=PUT&path=%2Fa%252Fb&content_sha256={'0f' * 32}".encode()
    signature = signed(query)

    assert signature.nonce == NONCE
    assert signature.method == "PUT"
    assert signature.path == "/a%2Fb"
    assert signature.content_sha256 == "0f" * 32


def test_absent_parameters_are_none() -> None:
    signature = signed(PLAIN)

    assert (signature.nonce, signature.method, signature.path, signature.content_sha256) == (None,) * 4


@pytest.mark.parametrize(
    ("received", "text", "accepted"),
    [
        pytest.param(b"&q=a%20b", b"&q=a%20b", True, id="as received"),
        pytest.param(b"&q=a%20b", b"&q=a+b", True, id="re-encoded: space"),
        pytest.param(b"&q=%2f", b"&q=%2F", True, id="re-encoded: upper-case escapes"),
        pytest.param(b"&q=/", b"&q=%2F", True, id="re-encoded: what need not be escaped"),
        pytest.param(b"&q", b"&q=", True, id="re-encoded: no value"),
        pytest.param(b"&&q=1&", b"&q=1", True, id="re-encoded: empty pieces"),
        pytest.param(b"&q=1;r=2", b"&q=1%3Br%3D2", True, id="re-encoded: a semicolon separates nothing"),
        pytest.param(b"&q=%ff", b"&q=%ff", True, id="as received: escapes that are not UTF-8"),
        pytest.param(b"&q=%ff", b"&q=%EF%BF%BD", True, id="re-encoded: escapes that are not UTF-8"),
        pytest.param(b"&q=\xff", b"&q=\xff", True, id="as received: bytes that are not ASCII"),
        pytest.param(b"&q=a+b", b"&q=a%20b", False, id="neither: the raw form of another"),
        pytest.param(b"&q=%2F", b"&q=%2f", False, id="neither: lower-case escapes"),
        pytest.param(b"&q=%2F", b"&q=/", False, id="neither: decoded"),
        pytest.param(b"&q=1&r=2", b"&r=2&q=1", False, id="neither: another order"),
        pytest.param(b"&q=1", b"", False, id="neither: a part"),
    ],
)
def test_the_query_is_signed_as_received_or_re_encoded(received: bytes, text: bytes, accepted: bool) -> None:
    assert proves(parse(PLAIN + received, mac(PLAIN + text)), SECRET) is accepted


def test_the_work_is_the_same_whichever_text_was_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(query_signature, "same", lambda a, b: (compared.append(a), a == b)[1])

    for text in (b"&q=a%20b", b"&q=a+b", b"&q=other"):
        proves(parse(PLAIN + b"&q=a%20b", mac(PLAIN + text)), SECRET)

    assert compared == [base64.b64decode(mac(PLAIN + text)) for text in (b"&q=a%20b", b"&q=a+b")] * 3


@pytest.mark.parametrize("query", [PLAIN, PLAIN + b"&q=a%20b"], ids=["plain", "raw bytes kept"])
@given(st.integers(min_value=0), st.integers(0, 255))
def test_one_other_byte_in_the_query_is_refused(query: bytes, place: int, byte: int) -> None:
    place %= len(query)
    altered = query[:place] + bytes([byte]) + query[place + 1 :]

    assert _accepted(altered, mac(query)) is (altered == query)


@given(st.integers(0, 43), st.integers(0, 255))
def test_one_other_byte_in_the_header_is_refused(place: int, byte: int) -> None:
    header = mac(PLAIN)
    altered = header[:place] + bytes([byte]) + header[place + 1 :]

    assert _accepted(PLAIN, altered) is (altered == header)


def test_the_last_character_of_the_header_has_one_spelling() -> None:
    header = mac(PLAIN)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spellings = [header[:-2] + bytes([last]) + b"=" for last in alphabet]

    assert [spelling for spelling in spellings if _accepted(PLAIN, spelling)] == [header]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="empty"),
        pytest.param(mac(PLAIN)[:-1], id="no padding"),
        pytest.param(mac(PLAIN) + b"=", id="too much padding"),
        pytest.param(mac(PLAIN) + b"\n", id="newline at the end"),
        pytest.param(b" " + mac(PLAIN), id="space"),
        pytest.param(mac(PLAIN).decode().encode("utf-16"), id="UTF-16"),
        pytest.param(mac(PLAIN) + b", " + mac(PLAIN), id="two in one header"),
        pytest.param(base64.b64encode(bytes(31)), id="31 bytes"),
        pytest.param(base64.b64encode(bytes(33)), id="33 bytes"),
        pytest.param(base64.urlsafe_b64encode(b"\xff" * 32), id="the URL-safe alphabet"),
        pytest.param(hmac.new(SECRET.encode(), PLAIN, "sha256").hexdigest().encode(), id="hexadecimal"),
        pytest.param("é".encode() * 22, id="not ASCII"),
        pytest.param(b"A" * 65_536, id="64 kB"),
    ],
)
def test_a_header_of_the_wrong_shape_is_refused(header: bytes) -> None:
    with pytest.raises(Unauthenticated, match="secret header"):
        parse(PLAIN, header)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"timestamp=1700000000", id="no key"),
        pytest.param(KEY, id="no timestamp"),
        pytest.param(b"key=&timestamp=1700000000", id="key: empty"),
        pytest.param(b"key=a+b&timestamp=1700000000", id="key: space"),
        pytest.param(b"key=%ff&timestamp=1700000000", id="key: not UTF-8"),
        pytest.param(b"key=%EF%BC%91&timestamp=1700000000", id="key: full-width digit"),
        pytest.param(KEY + b"&timestamp=", id="timestamp: empty"),
        pytest.param(KEY + b"&timestamp", id="timestamp: no value"),
        pytest.param(KEY + b"&timestamp=1700000000%0A", id="timestamp: newline at the end"),
        pytest.param(KEY + b"&timestamp=+1700000000", id="timestamp: space"),
        pytest.param(KEY + b"&timestamp=%2B1700000000", id="timestamp: plus"),
        pytest.param(KEY + b"&timestamp=-1", id="timestamp: minus"),
        pytest.param(KEY + b"&timestamp=1_700_000_000", id="timestamp: underscores"),
        pytest.param(KEY + b"&timestamp=1700000000.0", id="timestamp: fraction"),
        pytest.param(KEY + b"&timestamp=1e9", id="timestamp: exponent"),
        pytest.param(KEY + b"&timestamp=1234567890123", id="timestamp: thirteen digits"),
        pytest.param(KEY + b"&timestamp=%EF%BC%91700000000", id="timestamp: full-width digit"),
        pytest.param(KEY + b"&timestamp=%ff", id="timestamp: not UTF-8"),
        pytest.param(KEY + b";timestamp=1700000000", id="timestamp: after a semicolon"),
        pytest.param(PLAIN + b"&nonce=", id="nonce: empty"),
        pytest.param(PLAIN + b"&nonce", id="nonce: no value"),
        pytest.param(PLAIN + b"&nonce=" + b"a" * 15, id="nonce: too short"),
        pytest.param(PLAIN + b"&nonce=" + b"a" * 65, id="nonce: too long"),
        pytest.param(PLAIN + b"&nonce=" + b"a" * 16 + b"%0A", id="nonce: newline at the end"),
        pytest.param(PLAIN + b"&nonce=" + b"a" * 16 + b"+", id="nonce: space"),
        pytest.param(PLAIN + b"&nonce=" + b"%C3%A9" * 16, id="nonce: not ASCII"),
        pytest.param(PLAIN + b"&method=", id="method: empty"),
        pytest.param(PLAIN + b"&method=get", id="method: lower case"),
        pytest.param(PLAIN + b"&method=GET%0A", id="method: newline at the end"),
        pytest.param(PLAIN + b"&path=", id="path: empty"),
        pytest.param(PLAIN + b"&path=v1", id="path: relative"),
        pytest.param(PLAIN + b"&path=/a+b", id="path: space"),
        pytest.param(PLAIN + b"&path=/%0A", id="path: newline at the end"),
        pytest.param(PLAIN + b"&path=/%ff", id="path: not UTF-8"),
        pytest.param(PLAIN + b"&path=/%C3%A9", id="path: not ASCII"),
        pytest.param(PLAIN + b"&content_sha256=", id="digest: empty"),
        pytest.param(PLAIN + b"&content_sha256=" + b"0" * 63, id="digest: too short"),
        pytest.param(PLAIN + b"&content_sha256=" + b"0" * 65, id="digest: too long"),
        pytest.param(PLAIN + b"&content_sha256=" + b"A" * 64, id="digest: upper case"),
        pytest.param(PLAIN + b"&content_sha256=" + b"0" * 64 + b"%0A", id="digest: newline at the end"),
    ],
)
def test_a_query_of_the_wrong_shape_is_refused_even_when_it_is_signed(query: bytes) -> None:
    with pytest.raises(Unauthenticated, match=r"ill-formed|without"):
        parse(query, mac(query))


@pytest.mark.parametrize("name", sorted(RESERVED_PARAMETERS))
@pytest.mark.parametrize("escape", [False, True], ids=["plain", "in percent escapes"])
def test_each_reserved_name_is_there_at_most_once(name: str, escape: bool) -> None:
    whole = PLAIN + f"&nonce={NONCE}&method=GET&path=/&content_sha256={'0' * 64}".encode()
    value = QueryParams(whole)[name]
    again = f"%{ord(name[0]):x}{name[1:]}" if escape else name

    with pytest.raises(Unauthenticated, match="more than once"):
        signed(whole + f"&{again}={value}".encode())


def test_other_names_may_repeat() -> None:
    assert proves(signed(PLAIN + b"&q=1&q=2"), SECRET)


@given(st.binary(), st.binary())
def test_no_request_upsets_the_parser(query: bytes, header: bytes) -> None:
    for whole in (query, PLAIN + b"&" + query):
        try:
            signature = parse(whole, header)
        except Unauthenticated:
            continue
        assert not proves(signature, SECRET)


@given(st.binary(max_size=64))
def test_the_bytes_as_received_are_accepted_with_any_other_parameters(rest: bytes) -> None:
    query = PLAIN + b"&q=" + rest.replace(b"&", b"")

    assert proves(signed(query), SECRET)


@pytest.mark.parametrize(
    ("parameters", "method", "raw_path", "covered"),
    [
        pytest.param(b"", "GET", b"/v1/me", True, id="nothing said"),
        pytest.param(b"&method=GET&path=/v1/me", "GET", b"/v1/me", True, id="both"),
        pytest.param(b"&method=HEAD", "HEAD", b"/v1/me", True, id="HEAD signs as HEAD"),
        pytest.param(b"&method=GET", "HEAD", b"/v1/me", False, id="HEAD does not sign as GET"),
        pytest.param(b"&method=POST", "GET", b"/v1/me", False, id="another method"),
        pytest.param(b"&path=%2Fv1%2Fme", "GET", b"/v1/me", True, id="escaped once"),
        pytest.param(b"&path=%252Fv1", "GET", b"/v1", None, id="escaped twice"),
        pytest.param(b"&path=/a%252Fb", "GET", b"/a%2Fb", True, id="an escaped slash stays escaped"),
        pytest.param(b"&path=/a%2Fb", "GET", b"/a%2Fb", False, id="an escaped slash is no slash"),
        pytest.param(b"&path=/a%252fb", "GET", b"/a%2Fb", False, id="escapes in another case"),
        pytest.param(b"&path=/a%2Bb", "GET", b"/a+b", True, id="plus"),
        pytest.param(b"&path=/v1/me/", "GET", b"/v1/me", False, id="slash at the end"),
        pytest.param(b"&path=/v1/me?a=1", "GET", b"/v1/me", False, id="with a query"),
        pytest.param(b"&path=/V1/me", "GET", b"/v1/me", False, id="another case"),
        pytest.param(b"&path=/v1", "GET", b"/v1/\xff", False, id="a raw path that is not ASCII"),
    ],
)
def test_a_signature_covers_the_method_and_the_path_that_it_names(
    parameters: bytes, method: str, raw_path: bytes, covered: bool | None
) -> None:
    if covered is None:
        with pytest.raises(Unauthenticated):
            signed(PLAIN + parameters)
    else:
        assert covers(signed(PLAIN + parameters), method, raw_path) is covered


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
    assert in_window(NOW, NOW + seconds, 60) is inside


METHOD, PATH, DIGEST = b"&method=POST", b"&path=/", b"&content_sha256=" + b"0" * 64


@pytest.mark.parametrize(
    ("parameters", "method", "has_body", "missing"),
    [
        pytest.param(b"", "GET", False, (), id="GET"),
        pytest.param(b"", "HEAD", False, (), id="HEAD"),
        pytest.param(b"", "OPTIONS", False, (), id="OPTIONS"),
        pytest.param(b"", "TRACE", False, (), id="TRACE"),
        pytest.param(b"", "GET", True, (), id="GET with a body"),
        pytest.param(b"", "POST", True, ("method", "path", "content_sha256"), id="POST with nothing"),
        pytest.param(b"", "DELETE", False, ("method", "path"), id="DELETE with nothing"),
        pytest.param(METHOD, "POST", True, ("path", "content_sha256"), id="POST with method"),
        pytest.param(METHOD + PATH, "POST", True, ("content_sha256",), id="POST with method and path"),
        pytest.param(METHOD + PATH, "POST", False, (), id="POST with method and path, no body"),
        pytest.param(METHOD + DIGEST, "POST", True, ("path",), id="POST without path"),
        pytest.param(METHOD + PATH + DIGEST, "POST", True, (), id="POST with everything"),
        pytest.param(b"", "get", False, ("method", "path"), id="a method that nobody knows"),
    ],
)
def test_an_unsafe_method_must_be_covered(
    parameters: bytes, method: str, has_body: bool, missing: tuple[Any, ...]
) -> None:
    assert missing_coverage(signed(PLAIN + parameters), method, has_body) == missing


@given(
    st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]),
    st.from_regex(r"/([a-z0-9._~+&=-]|%[0-9A-F]{2}){0,20}", fullmatch=True),
    st.none() | st.binary(),
    st.sampled_from(["", "q=a%20b", "q=a+b&q=%ff", "a&&b"]),
)
def test_the_service_accepts_queries_that_the_client_signs(
    method: str, path: str, body: bytes | None, query: str
) -> None:
    text, header = sign_query(SECRET, query, ACCESS_KEY, NOW + 0.9, method=method, path=path, body=body)
    signature = parse(text.encode(), header.encode())

    assert proves(signature, SECRET)
    assert covers(signature, method, path.encode())
    assert in_window(signature.timestamp, NOW, 0)
    assert missing_coverage(signature, method, has_body=True) == ()
    assert signature.content_sha256 == hashlib.sha256(body or b"").hexdigest()


def test_a_safe_call_is_signed_with_what_is_given() -> None:
    text, _ = sign_query(SECRET, "q=1", ACCESS_KEY, NOW, body=b"")

    assert text == PLAIN.decode() + f"&content_sha256={hashlib.sha256(b'').hexdigest()}&q=1"


@pytest.mark.parametrize(
    ("query", "method", "sentence"),
    [
        pytest.param("nonce=1&q=2&key=3", "GET", "itself: key, nonce", id="reserved names"),
        pytest.param("q=é", "GET", "percent-encoded", id="not ASCII"),
        pytest.param("", "POST", "must be signed with its path", id="an unsafe method without a path"),
    ],
)
def test_values_that_cannot_be_signed_are_named(query: str, method: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sign_query(SECRET, query, ACCESS_KEY, NOW, method=method)


def test_every_reserved_name_has_a_shape() -> None:
    assert query_signature._SHAPES.keys() == RESERVED_PARAMETERS


@pytest.mark.parametrize(
    ("query", "header"),
    [
        pytest.param(b"key=" + SECRET.encode() + b"&timestamp=1", mac(PLAIN), id="as the access key"),
        pytest.param(PLAIN, SECRET.encode(), id="as the header"),
        pytest.param(PLAIN + b"&nonce=" + SECRET.encode() + b"+", mac(PLAIN), id="in a parameter"),
        pytest.param(PLAIN + b"&key=" + SECRET.encode(), mac(PLAIN), id="as a second access key"),
        pytest.param(PLAIN + b"&q=" + SECRET.encode(), mac(PLAIN), id="in the rest of the query"),
    ],
)
def test_nothing_shows_what_the_client_sent(query: bytes, header: bytes) -> None:
    shown: object
    try:
        shown = parse(query, header)
    except Unauthenticated as refusal:
        shown = refusal

    assert SECRET not in repr(shown) + str(shown)
    assert mac(PLAIN).decode() not in repr(shown) + str(shown)


def _accepted(query: bytes, header: bytes) -> bool:
    try:
        return proves(parse(query, header), SECRET)
    except Unauthenticated:
        return False
