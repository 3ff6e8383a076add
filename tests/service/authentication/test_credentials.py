import hashlib
import math
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.service.authentication.wire.credentials import (
    Dummy,
    Secret,
    checksum_is_right,
    decode_base64,
    hash_secret,
    new_access_key,
    new_secret,
    parse_access_key,
    parse_secret,
    same,
)

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ACCESS_KEY = "lka_0000000000000000000000"
SECRET = "lks_00000000000000000000000000000000000000000003GTfko"

prefixes = st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)


def test_the_golden_secret_has_a_right_checksum() -> None:
    assert new_secret("lk", random_bytes=bytes) == SECRET
    assert parse_secret(SECRET, "lk") == SECRET


def test_a_golden_access_key_is_all_zeros() -> None:
    assert new_access_key("lk", random_bytes=bytes) == ACCESS_KEY


def test_base62_is_positional_and_big_endian() -> None:
    def sixty_two(n: int) -> bytes:
        return (62).to_bytes(n, "big")

    assert new_access_key("lk", random_bytes=sixty_two) == "lka_" + "0" * 20 + "10"
    assert new_secret("lk", random_bytes=sixty_two).startswith("lks_" + "0" * 41 + "10")


def test_a_secret_holds_all_of_its_256_bits() -> None:
    asked = []

    def highest(n: int) -> bytes:
        asked.append(n)
        return b"\xff" * n

    secret = new_secret("lk", random_bytes=highest)
    digits = secret.removeprefix("lks_")[:43]

    assert asked == [32]
    assert (
        sum(ALPHABET.index(digit) * 62**place for place, digit in enumerate(reversed(digits))) == 2**256 - 1
    )
    assert math.log2(62**43) > 256


def test_an_access_key_holds_128_bits() -> None:
    asked = []
    new_access_key("lk", random_bytes=lambda n: (asked.append(n), bytes(n))[1])

    assert asked == [16]


def test_no_two_keys_are_the_same() -> None:
    assert len({new_secret("lk") for _ in range(100)}) == 100
    assert len({new_access_key("lk") for _ in range(100)}) == 100


@given(prefixes, st.binary(min_size=32, max_size=32))
def test_new_credentials_are_parsed_with_any_prefix(prefix: str, noise: bytes) -> None:
    secret = new_secret(prefix, random_bytes=lambda n: noise[:n])
    access_key = new_access_key(prefix, random_bytes=lambda n: noise[:n])

    assert parse_secret(secret, prefix) == secret
    assert parse_access_key(access_key, prefix) == access_key
    assert parse_secret(access_key, prefix) is None
    assert parse_access_key(secret, prefix) is None


@given(st.data())
def test_one_wrong_character_in_a_secret_is_a_typo(data: st.DataObject) -> None:
    secret = new_secret("lk", random_bytes=lambda n: data.draw(st.binary(min_size=n, max_size=n)))
    place = data.draw(st.integers(0, len(secret) - 1))
    other = data.draw(st.sampled_from(ALPHABET + "_-") | st.characters())
    typo = secret[:place] + other + secret[place + 1 :]

    assert (parse_secret(typo, "lk") is None) == (typo != secret)


@given(st.data())
def test_one_wrong_bit_in_a_secret_is_a_typo(data: st.DataObject) -> None:
    secret = new_secret("lk", random_bytes=lambda n: data.draw(st.binary(min_size=n, max_size=n)))
    bits = bytearray(secret.encode())
    bits[data.draw(st.integers(0, len(bits) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    assert parse_secret(bits.decode("latin-1"), "lk") is None
    assert not checksum_is_right(bits.decode("latin-1"))


@given(st.data())
def test_two_neighbours_swapped_in_a_secret_are_a_typo(data: st.DataObject) -> None:
    secret = new_secret("lk", random_bytes=lambda n: data.draw(st.binary(min_size=n, max_size=n)))
    place = data.draw(st.integers(0, len(secret) - 2))
    swapped = secret[:place] + secret[place + 1] + secret[place] + secret[place + 2 :]

    assert (parse_secret(swapped, "lk") is None) == (swapped != secret)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("lks_", id="only the prefix"),
        pytest.param(SECRET[4:], id="no prefix"),
        pytest.param(SECRET[:-1], id="one short"),
        pytest.param(SECRET + "0", id="one long"),
        pytest.param("0" + SECRET, id="one long in front"),
        pytest.param(SECRET + "\n", id="newline at the end"),
        pytest.param(SECRET[:-1] + "\n", id="newline as the last character"),
        pytest.param(" " + SECRET, id="space in front"),
        pytest.param(SECRET.upper(), id="upper case"),
        pytest.param(SECRET.replace("lks_", "lka_"), id="access key with the length of a secret"),
        pytest.param(SECRET.replace("lks_", "xks_"), id="another prefix"),
        pytest.param(SECRET.replace("3", "\N{FULLWIDTH DIGIT THREE}"), id="full-width digit"),
        pytest.param(SECRET.replace("s", "\N{LATIN SMALL LETTER LONG S}"), id="long s"),
        pytest.param(SECRET[:-1] + "\ud800", id="lone surrogate"),
        pytest.param(SECRET[:-1] + "\0", id="null character"),
        pytest.param("lks_" + "0" * 65_536, id="64 kB"),
    ],
)
def test_texts_that_are_no_secret_are_refused(text: str) -> None:
    assert parse_secret(text, "lk") is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(ACCESS_KEY[:-1], id="one short"),
        pytest.param(ACCESS_KEY + "0", id="one long"),
        pytest.param(ACCESS_KEY + "\n", id="newline at the end"),
        pytest.param(ACCESS_KEY[:-1] + "\n", id="newline as the last character"),
        pytest.param(ACCESS_KEY[:-1] + "_", id="underscore among the digits"),
        pytest.param(ACCESS_KEY[:-1] + "\N{FULLWIDTH DIGIT ZERO}", id="full-width digit"),
        pytest.param(ACCESS_KEY.replace("lka", "LKA"), id="upper-case prefix"),
        pytest.param(SECRET, id="a secret"),
        pytest.param("\ud800" * 26, id="lone surrogates"),
    ],
)
def test_texts_that_are_no_access_key_are_refused(text: str) -> None:
    assert parse_access_key(text, "lk") is None


@given(st.text())
def test_no_text_upsets_the_readers(text: str) -> None:
    assert parse_secret(text, "lk") is None
    assert parse_access_key(text, "lk") is None
    assert checksum_is_right(text) in {True, False}


def test_the_checksum_covers_the_prefix() -> None:
    assert checksum_is_right(SECRET)
    assert not checksum_is_right(SECRET.replace("lks_", "lkt_"))
    assert not checksum_is_right(SECRET[:-6])


@pytest.mark.parametrize(
    "text", ["\ud800" * 55, "é" * 49 + "000000", ""], ids=["surrogates", "not ASCII", "empty"]
)
def test_text_without_a_checksum_has_no_right_one(text: str) -> None:
    assert not checksum_is_right(text)


def test_a_hash_is_the_sha256_of_the_whole_secret() -> None:
    assert hash_secret(Secret(SECRET)) == hashlib.sha256(SECRET.encode()).digest()


def test_same_compares_bytes() -> None:
    assert same(b"\xff" * 32, b"\xff" * 32)
    assert not same(b"\xff" * 32, b"\xff" * 31 + b"\xfe")
    assert not same(b"", b"\0")


def test_a_dummy_is_a_key_like_any_other_and_new_each_time() -> None:
    dummy = Dummy.new("lk")

    assert parse_access_key(dummy.access_key, "lk")
    assert parse_secret(dummy.secret, "lk")
    assert dummy.secret_hash == hash_secret(dummy.secret)
    assert dummy.secret != Dummy.new("lk").secret


def test_a_dummy_does_not_show_its_secret() -> None:
    dummy = Dummy.new("lk")

    assert dummy.secret not in repr(dummy) + str(dummy)
    assert repr(dummy.secret_hash) not in repr(dummy)


@given(st.binary())
def test_base64_comes_back(data: bytes) -> None:
    assert decode_base64(b64encode(data).decode()) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("QQ", id="no padding"),
        pytest.param("QR==", id="bits that mean nothing, before two pads"),
        pytest.param("QUJ=", id="bits that mean nothing, before one pad"),
        pytest.param("QQ==\n", id="newline at the end"),
        pytest.param("QQ==QQ==", id="padding in the middle"),
        pytest.param("QQ===", id="too much padding"),
        pytest.param(" QQ==", id="space"),
        pytest.param("__8=", id="the other alphabet"),
        pytest.param("QQ\N{FULLWIDTH EQUALS SIGN}=", id="not ASCII"),
        pytest.param("\ud800", id="lone surrogate"),
    ],
)
def test_base64_that_is_not_canonical_is_refused(text: str) -> None:
    assert decode_base64(text) is None
