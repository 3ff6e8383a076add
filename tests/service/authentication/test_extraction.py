from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.service.authentication.wire.credentials import new_secret
from latchkey.service.authentication.wire.extraction import (
    Bearer,
    MessageSigned,
    QuerySigned,
    TwoCredentials,
    Unauthenticated,
    extract,
)

SECRET = new_secret("lk")
BEARER = (b"authorization", b"Bearer " + SECRET.encode())
MAC = (b"secret", b"jnjkwUMJgHhfGRCQ1ZD90poV7c3l9OUzl0phNFzkRQg=")
SIGNATURE = (b"signature", b"sig1=:AAAA:")
SIGNATURE_INPUT = (b"signature-input", b"sig1=();created=1")
KEY = b"key=lka_0000000000000000000000&timestamp=1700000000"


@pytest.mark.parametrize(
    ("headers", "query", "credential"),
    [
        pytest.param([], b"", None, id="nothing"),
        pytest.param([(b"host", b"a")], b"limit=5", None, id="other headers and parameters"),
        pytest.param(
            [], b"timestamp=1&nonce=2&method=GET&path=/&content_sha256=3", None, id="reserved, but no key"
        ),
        pytest.param(
            [], b"keys=1&xkey=2&ke=3&KEY=4&a=key&%6bey2=5&b=%26key", None, id="names that are almost key"
        ),
        pytest.param([BEARER], b"", Bearer(SECRET), id="bearer"),
        pytest.param([BEARER], b"timestamp=1&keys=2", Bearer(SECRET), id="bearer with a query"),
        pytest.param([BEARER], b"q=" + b"a" * 65_536, Bearer(SECRET), id="bearer with a long query"),
        pytest.param([(b"authorization", b"bEARER x")], b"", Bearer("x"), id="scheme in any case"),
        pytest.param(
            [(b"authorization", b"Bearer  x")], b"", Bearer("x"), id="two spaces, as RFC 6750 allows"
        ),
        pytest.param(
            [(b"authorization", b" Bearer x\t ")], b"", Bearer("x"), id="white space around the value"
        ),
        pytest.param(
            [(b"authorization", b"Bearer a.b-c_d~e+f/g==")], b"", Bearer("a.b-c_d~e+f/g=="), id="token68"
        ),
        pytest.param([MAC], KEY, QuerySigned(KEY, MAC[1]), id="query"),
        pytest.param([MAC], b"k%65y=1", QuerySigned(b"k%65y=1", MAC[1]), id="key in percent escapes"),
        pytest.param([MAC], b"a=1&key", QuerySigned(b"a=1&key", MAC[1]), id="key without a value"),
        pytest.param([(b"secret", b"")], b"key=", QuerySigned(b"key=", b""), id="empty values"),
        pytest.param([SIGNATURE], b"", MessageSigned(), id="signature"),
        pytest.param([SIGNATURE_INPUT], b"", MessageSigned(), id="signature-input"),
        pytest.param([SIGNATURE, SIGNATURE_INPUT], b"q=1", MessageSigned(), id="message"),
        pytest.param(
            [SIGNATURE, SIGNATURE_INPUT] * 2,
            b"",
            MessageSigned(),
            id="a message in several lines, which are one",
        ),
    ],
)
def test_a_request_carries(headers: list[Any], query: bytes, credential: Any) -> None:
    assert extract(headers, query) == credential


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        pytest.param([BEARER], KEY, id="bearer and key"),
        pytest.param([BEARER], b"%6Bey=", id="bearer and an empty key in percent escapes"),
        pytest.param([BEARER, MAC], b"", id="bearer and secret"),
        pytest.param([BEARER, MAC], KEY, id="bearer and query"),
        pytest.param([BEARER, SIGNATURE], b"", id="bearer and signature"),
        pytest.param([BEARER, SIGNATURE, SIGNATURE], b"", id="bearer and two signatures"),
        pytest.param([BEARER, SIGNATURE_INPUT], b"", id="bearer and signature-input"),
        pytest.param([SIGNATURE], KEY, id="message and key"),
        pytest.param([SIGNATURE_INPUT, MAC], b"", id="message and secret"),
        pytest.param([BEARER, MAC, SIGNATURE], KEY, id="all three"),
        pytest.param([(b"authorization", b"Basic eDp5")], KEY, id="another scheme and key"),
        pytest.param([(b"authorization", b"")], KEY, id="an empty authorization and key"),
        pytest.param([BEARER, BEARER], KEY, id="one kind twice, and another"),
        pytest.param([BEARER], b"a=1&" * 16_384 + KEY, id="a key after 64 kB of query"),
    ],
)
def test_credentials_of_two_kinds_are_refused_as_such(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    with pytest.raises(TwoCredentials):
        extract(headers, query)


def test_the_reason_names_the_kinds_for_the_log() -> None:
    with pytest.raises(TwoCredentials, match="bearer and message") as refusal:
        extract([BEARER, SIGNATURE], b"")

    assert refusal.value.reason == str(refusal.value)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        pytest.param([BEARER, BEARER], b"", id="two authorizations"),
        pytest.param([BEARER, (b"authorization", b"Basic eDp5")], b"", id="two schemes"),
        pytest.param([MAC, MAC], KEY, id="two secrets"),
        pytest.param([MAC], KEY + b"&key=x", id="two keys"),
        pytest.param([MAC], KEY + b"&k%65y=x", id="two keys, one in percent escapes"),
        pytest.param([MAC], KEY + b"&key", id="two keys, one without a value"),
        pytest.param([MAC], b"", id="a secret without a key"),
        pytest.param([], KEY, id="a key without a secret"),
        pytest.param([MAC], KEY + b"&q=" + b"a" * 8192, id="a signed query that is too long"),
        pytest.param([MAC], KEY + b"&a" * 32_768, id="64 kB of parameters"),
    ],
)
def test_one_kind_twice_or_half_of_it_proves_nobody(headers: list[Any], query: bytes) -> None:
    with pytest.raises(Unauthenticated):
        extract(headers, query)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"Bearer", id="no token"),
        pytest.param(b"Bearer ", id="empty token"),
        pytest.param(b"Bearer =", id="only padding"),
        pytest.param(b"Bearerx", id="no space"),
        pytest.param(b"Bearer\tx", id="tab for a space"),
        pytest.param(b"Bearer x y", id="two tokens"),
        pytest.param(b"Bearer x,", id="comma"),
        pytest.param(b"Bearer x, Bearer y", id="two credentials in one header"),
        pytest.param(b'Bearer "x"', id="quotes"),
        pytest.param(b"Bearer x\n", id="newline at the end"),
        pytest.param(b"Bearer x\0", id="null character"),
        pytest.param(b"Bearer x=y", id="padding in the middle"),
        pytest.param(b"Bearer \xc3\xa9", id="not ASCII"),
        pytest.param(b"Bearer Bearer x", id="scheme twice"),
        pytest.param(b"x Bearer y", id="something in front"),
        pytest.param(b"Basic eDp5", id="another scheme"),
        pytest.param(SECRET.encode(), id="no scheme"),
        pytest.param(b"Bearer " + b"x" * 65_536, id="64 kB"),
        pytest.param(b" " * 65_536, id="64 kB of spaces"),
    ],
)
def test_an_authorization_of_the_wrong_shape_proves_nobody(value: bytes) -> None:
    with pytest.raises(Unauthenticated):
        extract([(b"authorization", value)], b"")


pieces = st.sampled_from(
    [b"key", b"k", b"%6b", b"%6B", b"e", b"%65", b"y", b"%79", b"&", b"=", b"+", b"%", b";"]
)
query_strings = st.lists(pieces | st.binary(max_size=2)).map(b"".join)


@given(query_strings)
def test_a_key_is_found_where_the_decoded_query_has_one(query: bytes) -> None:
    decoded = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]

    if decoded.count("key") == 1:
        assert extract([MAC], query) == QuerySigned(query, MAC[1])
    else:
        with pytest.raises(Unauthenticated):
            extract([MAC], query)


names = st.sampled_from([b"authorization", b"secret", b"signature", b"signature-input", b"host"])


@given(st.lists(st.tuples(names, st.binary()), max_size=3), query_strings)
def test_no_request_upsets_the_extraction(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    try:
        credential = extract(headers, query)
    except (Unauthenticated, TwoCredentials):
        return

    assert credential is None or isinstance(credential, Bearer | QuerySigned | MessageSigned)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        pytest.param([BEARER], b"", id="bearer"),
        pytest.param([BEARER], b"key=" + SECRET.encode(), id="two kinds"),
        pytest.param([BEARER, BEARER], b"", id="twice"),
        pytest.param([(b"authorization", SECRET.encode())], b"", id="no scheme"),
        pytest.param([(b"secret", SECRET.encode())], KEY, id="in the header of the signature"),
        pytest.param([MAC], b"key=" + SECRET.encode(), id="as the access key"),
        pytest.param([], b"key=" + SECRET.encode(), id="as the access key, unsigned"),
    ],
)
def test_nothing_shows_what_the_client_sent(headers: list[Any], query: bytes) -> None:
    shown: object
    try:
        shown = extract(headers, query)
    except (Unauthenticated, TwoCredentials) as refusal:
        shown = refusal

    assert SECRET not in repr(shown) + str(shown)
    assert MAC[1].decode() not in repr(shown) + str(shown)
