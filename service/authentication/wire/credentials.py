"""The format of access keys and secrets, and how both are generated, parsed and compared.

With the prefix `lk`:

- the access key is `lka_` and 22 base62 digits; it is public;
- the secret is `lks_`, 43 base62 digits (256 bits) and 6 base62 digits of checksum;
- the secret of a key of another environment than the first one names it, as in `lks_test_`.

The checksum is the CRC32 of all the text before it, prefix included.
It keeps typing errors away from the database and proves nothing.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Callable
from typing import NewType, Self

import msgspec

AccessKey = NewType("AccessKey", str)
Secret = NewType("Secret", str)
SecretHash = NewType("SecretHash", bytes)

RandomBytes = Callable[[int], bytes]

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE62 = re.compile(r"[0-9A-Za-z]*")

_MARK = re.compile(r"(?:[a-z][a-z0-9]{0,15}_)?")  # of an environment

_ID_DIGITS = 22
_ID_BYTES = 16  # 128 bits: they fit into 22 base62 digits
_SECRET_DIGITS = 43
_SECRET_BYTES = 32  # 256 bits: they fit into 43 base62 digits
_CHECKSUM_DIGITS = 6  # 32 bits fit into them


class Dummy(msgspec.Struct, frozen=True):
    """A key that nobody holds, which is checked in place of a key that was not found.

    Checking it costs as much as checking a real key, so timing does not reveal which access keys exist.
    It is random, so nobody can sign with it, and it is refused whatever the result of the check.
    """

    access_key: AccessKey
    secret: Secret
    secret_hash: SecretHash

    @classmethod
    def new(cls, prefix: str) -> Self:
        """Return a new dummy; one for each process is enough."""
        secret = new_secret(prefix)
        return cls(new_access_key(prefix), secret, hash_secret(secret))

    def __repr__(self) -> str:
        return f"Dummy(access_key={self.access_key!r})"


def new_access_key(prefix: str, *, random_bytes: RandomBytes = secrets.token_bytes) -> AccessKey:
    """Return a new access key of 128 random bits; `random_bytes(n)` returns n bytes."""
    return AccessKey(f"{prefix}a_{_base62(random_bytes(_ID_BYTES), _ID_DIGITS)}")


def new_secret(
    prefix: str, *, environment: str | None = None, random_bytes: RandomBytes = secrets.token_bytes
) -> Secret:
    """Return a new secret of 256 random bits.

    Args:
        prefix: of the installation.
        environment: the name to show in the secret; None shows none.
        random_bytes: called with n, returns n bytes.
    """
    mark = "" if environment is None else f"{environment}_"
    body = f"{prefix}s_{mark}{_base62(random_bytes(_SECRET_BYTES), _SECRET_DIGITS)}"
    return Secret(body + _checksum(body))


def parse_access_key(text: str, prefix: str) -> AccessKey | None:
    """Parse an access key; None for anything else."""
    return AccessKey(text) if _is_made_of(text, f"{prefix}a_", _ID_DIGITS) else None


def parse_secret(text: str, prefix: str) -> Secret | None:
    """Parse a secret of any environment; None for anything else, including a wrong checksum."""
    digits = _SECRET_DIGITS + _CHECKSUM_DIGITS
    mark = text[:-digits].removeprefix(f"{prefix}s_")
    shaped = _MARK.fullmatch(mark) is not None and _is_made_of(text, f"{prefix}s_{mark}", digits)
    return Secret(text) if shaped and checksum_is_right(text) else None


def checksum_is_right(text: str) -> bool:
    """Return whether the last six digits are the CRC32 of all the text before them."""
    body, checksum = text[:-_CHECKSUM_DIGITS], text[-_CHECKSUM_DIGITS:]
    return text.isascii() and checksum == _checksum(body)


def hash_secret(secret: Secret) -> SecretHash:
    """Return the SHA-256 of a secret: 256 random bits need no salt and no slow hash."""
    return SecretHash(hashlib.sha256(secret.encode()).digest())


def same(a: bytes, b: bytes) -> bool:
    """Compare two values in constant time."""
    return hmac.compare_digest(a, b)


def decode_base64(text: str) -> bytes | None:
    """Decode canonical base64; None for anything else.

    The last character of base64 may contain unused bits, so several texts decode to the same bytes.
    Only the text that encoding these bytes produces is accepted.
    """
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or non-ASCII text
        return None
    return decoded if binascii.b2a_base64(decoded, newline=False) == text.encode() else None


def _is_made_of(text: str, head: str, digits: int) -> bool:
    # Split from the right: the number of digits is fixed, and a prefix may contain underscores.
    return text[:-digits] == head and _BASE62.fullmatch(text[-digits:]) is not None


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()).to_bytes(4, "big"), _CHECKSUM_DIGITS)


def _base62(number: bytes, width: int) -> str:
    rest, text = int.from_bytes(number, "big"), ""
    while rest:
        rest, digit = divmod(rest, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text.rjust(width, _ALPHABET[0])
