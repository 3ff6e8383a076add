"""The seal of an event, and of the head of the log: pure functions of the key ring.

The seal of an event consists of the id of its ring key (4 bytes, big-endian) and three HMACs, each in its own context: of
its content (16 bytes), of its content and position (16 bytes), and of both together with the third HMAC of the event
before it (32 bytes). The first two show whether an event was changed or moved; the third chains the events.

Two salts follow (16 bytes each). What may be personal, the values and the address, is not sealed itself, but by an HMAC of
it and of its salt. To erase it, this HMAC is stored in its place, and the salt is removed: the seal stays valid, and nobody
can test what the erased value was, not even with the key ring.
"""

import hmac
import re
import secrets
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import msgspec
from msgspec.structs import replace

from latchkey.service.authentication.keyring import ID_BYTES, KeyRing, ring_key_of

SHORT = 16  # bytes of an HMAC; RFC 2104, section 5, allows half of it
CHAIN_BYTES = 32
SALT_BYTES = 16
NO_SALT = bytes(SALT_BYTES)
"""In place of the salt of what was erased."""
ERASED = "erased"
START = bytes(CHAIN_BYTES)
"""The chain before the first event."""

_PARTS = (SHORT, SHORT, CHAIN_BYTES, SALT_BYTES, SALT_BYTES)
_ERASED_VALUES = re.compile(rf'{{"{ERASED}":"[0-9a-f]{{{2 * SHORT}}}"}}')


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The content of an event, as it is stored; `before` and `after` are JSON texts."""

    id: UUID
    occurred_at: datetime
    actor_kind: str
    actor_id: str | None
    actor_user_id: int | None
    action: str
    target_kind: str
    target_id: str
    before: str | None
    after: str | None
    address: str | None
    request_id: str | None


class Head(msgspec.Struct, frozen=True):
    """The position of an event, and the chain at it."""

    position: int
    chain: bytes


class Salts(msgspec.Struct, frozen=True):
    """The salts of the values and of the address of an event."""

    values: bytes
    address: bytes


def new_salts() -> Salts:
    """Return the salts of an event that is sealed for the first time."""
    return Salts(secrets.token_bytes(SALT_BYTES), secrets.token_bytes(SALT_BYTES))


class Seal(msgspec.Struct, frozen=True):
    """The parts of a seal."""

    key_id: int
    content: bytes
    place: bytes
    chain: bytes
    salts: Salts

    @classmethod
    def from_bytes(cls, stored: bytes | None) -> Self | None:
        """Return the parts of a stored seal; None if it cannot be one."""
        if stored is None or len(stored) != ID_BYTES + sum(_PARTS):
            return None
        parts, place = [], ID_BYTES
        for length in _PARTS:
            parts.append(stored[place : place + length])
            place += length
        content, position, chain, *salts = parts
        return cls(ring_key_of(stored), content, position, chain, Salts(*salts))

    def to_bytes(self) -> bytes:
        """Return the form that is stored."""
        macs = self.content + self.place + self.chain
        return self.key_id.to_bytes(ID_BYTES, "big") + macs + self.salts.values + self.salts.address


def seal_of(
    keyring: KeyRing, content: Content, position: int, previous: bytes, *, key_id: int, salts: Salts
) -> Seal:
    """Return the seal of an event.

    Args:
        keyring: whose keys seal.
        content: of the event.
        position: of the event, from 1 on.
        previous: the chain of the event before it, or `START`.
        key_id: the id of the ring key.
        salts: of the event.

    Raises:
        KeyRingError: the ring has no such key.
    """
    payload, place = payload_of(keyring, content, key_id, salts), position.to_bytes(8, "big")
    content_mac = keyring.mac(payload, b"latchkey audit content", key_id=key_id)[:SHORT]
    place_mac = keyring.mac(place + payload, b"latchkey audit place", key_id=key_id)[:SHORT]
    chain = keyring.mac(previous + place_mac + content_mac, b"latchkey audit chain", key_id=key_id)
    return Seal(key_id, content_mac, place_mac, chain, salts)


def payload_of(keyring: KeyRing, content: Content, key_id: int, salts: Salts) -> bytes:
    """Return the bytes that are sealed, which contain HMACs of the values and the address, and not these themselves."""
    fields: dict[str, Any] = msgspec.structs.asdict(content)
    for name in ("before", "after", "address"):
        del fields[name]
    values = digest_of_values(keyring, content, key_id, salts)
    address = digest_of_address(keyring, content, key_id, salts)
    return msgspec.json.encode([*fields.values(), values, address])


def digest_of_values(keyring: KeyRing, content: Content, key_id: int, salts: Salts) -> str:
    """Return the HMAC of the values; that which is stored if the values were erased."""
    if has_erased_values(content):
        return str(msgspec.json.decode(content.after or "")[ERASED])
    values = msgspec.json.encode([content.before, content.after])
    return keyring.mac(salts.values + values, b"latchkey audit values", key_id=key_id)[:SHORT].hex()


def digest_of_address(keyring: KeyRing, content: Content, key_id: int, salts: Salts) -> str:
    """Return the HMAC of the address; that which is stored if the address was erased."""
    if has_erased_address(content):
        return (content.address or "").removeprefix(f"{ERASED}:")
    address = msgspec.json.encode(content.address)
    return keyring.mac(salts.address + address, b"latchkey audit address", key_id=key_id)[:SHORT].hex()


def has_erased_values(content: Content) -> bool:
    """Return whether the values of an event were erased; no column of an audited row is called `erased`."""
    return content.before is None and _ERASED_VALUES.fullmatch(content.after or "") is not None


def has_erased_address(content: Content) -> bool:
    """Return whether the address of an event was erased."""
    return content.address is not None and content.address.startswith(f"{ERASED}:")


def without_values(keyring: KeyRing, content: Content, seal: Seal) -> tuple[Content, Seal]:
    """Return an event and its seal without the values before and after; the seal stays valid.

    Raises:
        KeyRingError: the ring does not have the key of the seal.
    """
    digest = digest_of_values(keyring, content, seal.key_id, seal.salts)
    erased = msgspec.json.encode({ERASED: digest}).decode()
    salts = Salts(NO_SALT, seal.salts.address)
    return replace(content, before=None, after=erased), replace(seal, salts=salts)


def without_address(keyring: KeyRing, content: Content, seal: Seal) -> tuple[Content, Seal]:
    """Return an event and its seal without the address of the client; the seal stays valid.

    Raises:
        KeyRingError: the ring does not have the key of the seal.
    """
    digest = digest_of_address(keyring, content, seal.key_id, seal.salts)
    salts = Salts(seal.salts.values, NO_SALT)
    return replace(content, address=f"{ERASED}:{digest}"), replace(seal, salts=salts)


def prove_head(keyring: KeyRing, head: Head, *, key_id: int) -> bytes:
    """Return the proof of a head: the id of the ring key, and an HMAC."""
    payload = head.position.to_bytes(8, "big") + head.chain
    return key_id.to_bytes(ID_BYTES, "big") + keyring.mac(payload, b"latchkey audit head", key_id=key_id)


def is_proved(keyring: KeyRing, head: Head, proof: bytes) -> bool:
    """Return whether the owner of the key ring wrote a head.

    Raises:
        KeyRingError: the ring does not have the key of the proof.
    """
    if head.position < 0:
        return False
    key_id = ring_key_of(proof)
    return hmac.compare_digest(prove_head(keyring, head, key_id=key_id), proof)
