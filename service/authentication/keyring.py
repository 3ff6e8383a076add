"""The key ring encrypts secrets at rest, and seals the tokens that clients hold.

Its text has the form `2:<base64>,1:<base64>`: ids and keys of 32 bytes.
The first key seals, and every key opens. To rotate, put a new key in front, and remove the old one at the end.

A sealed value consists of the id of its key (4 bytes, big-endian), the nonce (12 bytes), and the output of
AES-256-GCM (the length of the plaintext and 16 bytes).
"""

import base64
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from latchkey.service.authentication.wire.credentials import AccessKey, RandomBytes, Secret, decode_base64
from latchkey.service.settings import Settings, SettingsError

_KEY_BYTES = 32
ID_BYTES = 4
_NONCE_BYTES = 12
_TAG_BYTES = 16

_KEY_ID = re.compile(r"[1-9][0-9]{0,8}")
_URL_SAFE = re.compile(r"[A-Za-z0-9_-]*")


class KeyRingError(Exception):
    """A sealed value cannot be opened: it was altered or cut, belongs to another context, or its key was removed."""


class KeyRing:
    """Keys by id, of which the first seals.

    Tokens are sealed with keys that are derived from the keys of the ring. A token therefore never opens as a secret,
    and tokens use up no nonces of the keys that encrypt secrets: NIST SP 800-38D, section 8.3, allows a key 2^32
    random nonces.
    """

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._first = next(iter(keys))
        self._secrets = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._tokens = {
            key_id: AESGCM(hmac.digest(key, b"latchkey token", "sha256")) for key_id, key in keys.items()
        }
        self._macs = {key_id: hmac.digest(key, b"latchkey mac", "sha256") for key_id, key in keys.items()}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the key ring of a text such as `2:<base64>,1:<base64>`.

        Raises:
            ValueError: an entry is invalid; the message names the entry and the fault, and never shows a part of it.
        """
        keys: dict[int, bytes] = {}
        for place, entry in enumerate(text.split(","), start=1):
            key_id, colon, encoded = entry.partition(":")
            if not colon:
                raise ValueError(f"Entry {place} of the key ring is not of the form id:base64.")
            if not _KEY_ID.fullmatch(key_id):
                raise ValueError(
                    f"Entry {place} of the key ring: the id is not a number from 1 to 999999999."
                )
            key = decode_base64(encoded)
            if key is None:
                raise ValueError(f"Entry {place} of the key ring: the key is not canonical base64.")
            if len(key) != _KEY_BYTES:
                raise ValueError(
                    f"Entry {place} of the key ring: the key has {len(key)} bytes instead of {_KEY_BYTES}."
                )
            if int(key_id) in keys:
                raise ValueError(f"Entry {place} of the key ring: an entry before it has the same id.")
            if key in keys.values():
                raise ValueError(f"Entry {place} of the key ring: an entry before it has the same key.")
            keys[int(key_id)] = key
        return cls(keys)

    @staticmethod
    def generate_text(*, key_id: int = 1, random_bytes: RandomBytes = secrets.token_bytes) -> str:
        """Return the text of a new ring with one key, for a first start or as the next key of a ring."""
        return f"{key_id}:{base64.b64encode(random_bytes(_KEY_BYTES)).decode()}"

    @property
    def first(self) -> int:
        """The id of the key that seals."""
        return self._first

    @property
    def ids(self) -> frozenset[int]:
        """The ids of all keys."""
        return frozenset(self._secrets)

    def __repr__(self) -> str:
        return f"KeyRing(ids={list(self._secrets)})"

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Encrypt a plaintext; it can be opened only with the same associated data."""
        return self._seal(self._secrets, plaintext, associated_data)

    def open(self, sealed: bytes, associated_data: bytes) -> bytes:
        """Decrypt a sealed value, or raise KeyRingError."""
        return self._open(self._secrets, sealed, associated_data)

    def mac(self, payload: bytes, context: bytes, *, key_id: int) -> bytes:
        """Return an HMAC-SHA-256 of a payload; the same payload has another one in another context.

        Raises:
            KeyRingError: the ring has no key with this id.
        """
        key = self._macs.get(key_id)
        if key is None:
            raise KeyRingError(f"The value was sealed with key {key_id}, which is not in the key ring.")
        return hmac.digest(key, context + b"\0" + payload, "sha256")

    def seal_secret(self, secret: Secret, access_key: AccessKey, version: int) -> bytes:
        """Encrypt the secret of one version of one key, so that it cannot be opened in another row."""
        return self.seal(secret.encode(), _row(access_key, version))

    def open_secret(self, sealed: bytes, access_key: AccessKey, version: int) -> Secret:
        """Decrypt the secret of one version of one key, or raise KeyRingError."""
        return Secret(self.open(sealed, _row(access_key, version)).decode())

    def seal_token(self, payload: bytes, context: bytes) -> str:
        """Return an opaque, URL-safe token that can be opened only with the same context."""
        sealed = self._seal(self._tokens, payload, context)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open_token(self, text: str, context: bytes) -> bytes:
        """Return the payload of a token, or raise KeyRingError."""
        if not _URL_SAFE.fullmatch(text):
            raise KeyRingError("The token is not URL-safe base64.")
        padding = "=" * (-len(text) % 4)
        sealed = decode_base64(text.translate(str.maketrans("-_", "+/")) + padding)
        if sealed is None:
            raise KeyRingError("The token is not canonical base64.")
        return self._open(self._tokens, sealed, context)

    def _seal(self, ciphers: Mapping[int, AESGCM], plaintext: bytes, associated_data: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        encrypted = ciphers[self._first].encrypt(nonce, plaintext, associated_data)
        return self._first.to_bytes(ID_BYTES, "big") + nonce + encrypted

    def _open(self, ciphers: Mapping[int, AESGCM], sealed: bytes, associated_data: bytes) -> bytes:
        if len(sealed) < ID_BYTES + _NONCE_BYTES + _TAG_BYTES:
            raise KeyRingError("The sealed value is too short.")
        key_id = ring_key_of(sealed)
        nonce, encrypted = sealed[ID_BYTES:][:_NONCE_BYTES], sealed[ID_BYTES + _NONCE_BYTES :]
        cipher = ciphers.get(key_id)
        if cipher is None:
            raise KeyRingError(f"The value was sealed with key {key_id}, which is not in the key ring.")
        try:
            return cipher.decrypt(nonce, encrypted, associated_data)
        except InvalidTag:
            raise KeyRingError(
                f"The sealed value was altered, belongs to another context, or was sealed with another key {key_id}."
            ) from None


def ring_key_of(sealed: bytes) -> int:
    """Return the id of the ring key with which a value was sealed."""
    return int.from_bytes(sealed[:ID_BYTES], "big")


def _row(access_key: AccessKey, version: int) -> bytes:
    return f"{access_key}|{version}".encode()


def open_keyring(settings: Settings) -> KeyRing:
    """Return the key ring, which has no default, because publicly known keys protect nothing."""
    if settings.keyring is None:
        raise SettingsError("LATCHKEY_KEYRING is not set: `latchkey keyring` prints a new one; keep it safe.")
    try:
        return KeyRing.from_text(settings.keyring)
    except ValueError as error:
        raise SettingsError(f"LATCHKEY_KEYRING: {error}") from None
