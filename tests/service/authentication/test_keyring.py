import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.authentication.wire.credentials import AccessKey, new_access_key, new_secret

OLD_KEY = b64encode(b"o" * 32).decode()
NEW_KEY = b64encode(b"n" * 32).decode()

RING = KeyRing.from_text(f"2:{NEW_KEY},1:{OLD_KEY}")
ACCESS_KEY = new_access_key("lk")
SECRET = new_secret("lk")

places = st.integers(min_value=0)


@given(st.binary(), st.binary())
def test_sealed_values_open(plaintext: bytes, associated_data: bytes) -> None:
    assert RING.open(RING.seal(plaintext, associated_data), associated_data) == plaintext


@given(st.binary(), st.binary())
def test_a_token_opens_and_fits_a_url(payload: bytes, context: bytes) -> None:
    token = RING.seal_token(payload, context)

    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert RING.open_token(token, context) == payload


def test_a_secret_opens_in_its_own_row() -> None:
    sealed = RING.seal_secret(SECRET, ACCESS_KEY, 3)

    assert RING.open_secret(sealed, ACCESS_KEY, 3) == SECRET
    assert RING.open(sealed, f"{ACCESS_KEY}|3".encode()) == SECRET.encode()
    assert SECRET.encode() not in sealed


def test_the_first_key_seals_and_every_key_opens() -> None:
    before = KeyRing.from_text(f"1:{OLD_KEY}")
    sealed, token = before.seal(b"text", b""), before.seal_token(b"text", b"")

    assert RING.open(sealed, b"") == b"text"
    assert RING.open_token(token, b"") == b"text"
    with pytest.raises(KeyRingError, match="key 2, which is not in the key ring"):
        before.open(RING.seal(b"text", b""), b"")
    with pytest.raises(KeyRingError, match="key 2, which is not in the key ring"):
        before.open_token(RING.seal_token(b"text", b""), b"")


def test_the_same_text_is_never_sealed_alike() -> None:
    assert len({RING.seal(b"text", b"") for _ in range(100)}) == 100


def test_sealed_bytes_name_their_key_then_the_nonce() -> None:
    sealed = RING.seal(b"text", b"")

    assert sealed[:4] == b"\0\0\0\2"
    assert len(sealed) == 4 + 12 + len(b"text") + 16


@pytest.mark.parametrize(
    ("access_key", "version"),
    [
        pytest.param(ACCESS_KEY, 2, id="another version"),
        pytest.param(ACCESS_KEY, 11, id="a version that begins alike"),
        pytest.param(new_access_key("lk"), 1, id="another key"),
    ],
)
def test_a_secret_opens_in_no_other_row(access_key: AccessKey, version: int) -> None:
    sealed = RING.seal_secret(SECRET, ACCESS_KEY, 1)

    with pytest.raises(KeyRingError):
        RING.open_secret(sealed, access_key, version)


def test_a_token_opens_in_no_other_context() -> None:
    with pytest.raises(KeyRingError):
        RING.open_token(RING.seal_token(b"text", b"users"), b"keys")


def test_tokens_and_secrets_do_not_open_as_each_other() -> None:
    row = f"{ACCESS_KEY}|1".encode()
    sealed = RING.seal_secret(SECRET, ACCESS_KEY, 1)
    token = RING.seal_token(SECRET.encode(), row)

    with pytest.raises(KeyRingError):
        RING.open_token(_url_safe(sealed), row)
    with pytest.raises(KeyRingError):
        RING.open(_from_url_safe(token), row)


@given(places, st.integers(0, 7))
def test_one_altered_bit_is_noticed(place: int, bit: int) -> None:
    sealed = bytearray(RING.seal(b"plaintext", b"row"))
    sealed[place % len(sealed)] ^= 1 << bit

    with pytest.raises(KeyRingError):
        RING.open(bytes(sealed), b"row")


@given(places, st.characters())
def test_one_altered_character_of_a_token_is_noticed(place: int, other: str) -> None:
    token = RING.seal_token(b"payload", b"context")
    place %= len(token)
    altered = token[:place] + other + token[place + 1 :]

    if altered != token:
        with pytest.raises(KeyRingError):
            RING.open_token(altered, b"context")


@given(st.binary(max_size=100))
def test_bytes_that_were_never_sealed_do_not_open(data: bytes) -> None:
    with pytest.raises(KeyRingError):
        RING.open(data, b"")


@given(st.text())
def test_text_that_is_no_token_does_not_open(text: str) -> None:
    with pytest.raises(KeyRingError):
        RING.open_token(text, b"")


@pytest.mark.parametrize("length", [0, 1, 4, 16, 31], ids=lambda length: f"{length} bytes")
def test_a_sealed_value_cut_short_does_not_open(length: int) -> None:
    with pytest.raises(KeyRingError, match="too short"):
        RING.open(RING.seal(b"text", b"")[:length], b"")


def test_a_token_has_one_spelling() -> None:
    token = RING.seal_token(b"", b"")  # 32 bytes: the last character contains two unused bits
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings = [token[:-1] + last for last in alphabet]

    opened = []
    for spelling in [*spellings, token + "=", token + "\n", " " + token]:
        try:
            opened.append((spelling, RING.open_token(spelling, b"")))
        except KeyRingError:
            continue

    assert opened == [(token, b"")]


def test_the_standard_alphabet_is_no_spelling_of_a_token() -> None:
    token = "--__" * 16

    with pytest.raises(KeyRingError, match="sealed with key"):
        RING.open_token(token, b"")
    with pytest.raises(KeyRingError, match="not URL-safe"):
        RING.open_token(token.replace("-", "+").replace("_", "/"), b"")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("", "Entry 1 .* id:base64", id="empty"),
        pytest.param(OLD_KEY, "Entry 1 .* id:base64", id="only a key"),
        pytest.param(f"1:{OLD_KEY},", "Entry 2 .* id:base64", id="comma at the end"),
        pytest.param(f"1:{OLD_KEY}\n", "canonical", id="newline at the end"),
        pytest.param(f"2:{NEW_KEY}, 1:{OLD_KEY}", "Entry 2 .* number", id="space"),
        pytest.param(f":{OLD_KEY}", "number", id="no id"),
        pytest.param(f"0:{OLD_KEY}", "number", id="zero"),
        pytest.param(f"-1:{OLD_KEY}", "number", id="negative"),
        pytest.param(f"01:{OLD_KEY}", "number", id="leading zero"),
        pytest.param(f"1_0:{OLD_KEY}", "number", id="underscore"),
        pytest.param(f"\N{FULLWIDTH DIGIT ONE}:{OLD_KEY}", "number", id="full-width digit"),
        pytest.param(f"1000000000:{OLD_KEY}", "number", id="id too large"),
        pytest.param(f"{OLD_KEY}:1", "number", id="the wrong way round"),
        pytest.param("1:", "0 bytes instead of 32", id="no key"),
        pytest.param(f"1:{b64encode(b'o' * 31).decode()}", "31 bytes instead of 32", id="31 bytes"),
        pytest.param(f"1:{b64encode(b'o' * 33).decode()}", "33 bytes instead of 32", id="33 bytes"),
        pytest.param(f"1:{OLD_KEY[:-1]}", "canonical", id="no padding"),
        pytest.param(f"1:{OLD_KEY[:-2]}9=", "canonical", id="bits that mean nothing"),
        pytest.param(f"1:{OLD_KEY}:", "canonical", id="colon at the end"),
        pytest.param(f"1:{'é' * 44}", "canonical", id="not ASCII"),
        pytest.param(f"1:{OLD_KEY},1:{NEW_KEY}", "Entry 2 .* same id", id="one id twice"),
        pytest.param(f"1:{OLD_KEY},2:{OLD_KEY}", "Entry 2 .* same key", id="one key twice"),
    ],
)
def test_a_ring_that_cannot_be_read_is_named_but_not_shown(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refusal:
        KeyRing.from_text(text)

    assert refusal.value.__cause__ is None
    assert OLD_KEY[:8] not in str(refusal.value)
    assert NEW_KEY[:8] not in str(refusal.value)


def test_a_generated_ring_can_be_used_and_is_new_each_time() -> None:
    text = KeyRing.generate_text()
    ring = KeyRing.from_text(text)

    assert ring.open(ring.seal(b"text", b""), b"") == b"text"
    assert text != KeyRing.generate_text()


def test_a_ring_shows_its_ids_and_no_key() -> None:
    assert repr(RING) == str(RING) == "KeyRing(ids=[2, 1])"
    assert "oooo" not in repr(vars(RING))
    assert "nnnn" not in repr(vars(RING))


def _url_safe(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).decode().rstrip("=")


def _from_url_safe(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))
