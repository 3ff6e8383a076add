"""The seal of an event, and of the head of the log: pure functions of the key ring.

The seal of an event consists of the id of its ring key (4 bytes, big-endian) and three HMACs, each in its own context: of
its content (16 bytes), of its content and position (16 bytes), and of both together with the third HMAC of the event
before it (32 bytes). The first two show whether an event was changed or moved; the third chains the events.
"""

import hmac
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import msgspec

from latchkey.service.authentication.keyring import ID_BYTES, KeyRing, ring_key_of

SHORT = 16  # bytes of an HMAC; RFC 2104, section 5, allows half of it
CHAIN_BYTES = 32
START = bytes(CHAIN_BYTES)
"""The chain before the first event."""


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


class Seal(msgspec.Struct, frozen=True):
    """The parts of a seal."""

    key_id: int
    content: bytes
    place: bytes
    chain: bytes

    @classmethod
    def from_bytes(cls, stored: bytes | None) -> Self | None:
        """Return the parts of a stored seal; None if it cannot be one."""
        if stored is None or len(stored) != ID_BYTES + 2 * SHORT + CHAIN_BYTES:
            return None
        key_id, macs = ring_key_of(stored), stored[ID_BYTES:]
        return cls(key_id, macs[:SHORT], macs[SHORT : 2 * SHORT], macs[2 * SHORT :])

    def to_bytes(self) -> bytes:
        """Return the form that is stored."""
        return self.key_id.to_bytes(ID_BYTES, "big") + self.content + self.place + self.chain


def seal_of(keyring: KeyRing, content: Content, position: int, previous: bytes, *, key_id: int) -> Seal:
    """Return the seal of an event.

    Args:
        keyring: whose keys seal.
        content: of the event.
        position: of the event, from 1 on.
        previous: the chain of the event before it, or `START`.
        key_id: the id of the ring key.

    Raises:
        KeyRingError: the ring has no such key.
    """
    payload, place = payload_of(keyring, content, key_id), position.to_bytes(8, "big")
    content_mac = keyring.mac(payload, b"latchkey audit content", key_id=key_id)[:SHORT]
    place_mac = keyring.mac(place + payload, b"latchkey audit place", key_id=key_id)[:SHORT]
    chain = keyring.mac(previous + place_mac + content_mac, b"latchkey audit chain", key_id=key_id)
    return Seal(key_id, content_mac, place_mac, chain)


def payload_of(keyring: KeyRing, content: Content, key_id: int) -> bytes:
    """Return the bytes that are sealed, which contain an HMAC of the values and not the values themselves."""
    fields: dict[str, Any] = msgspec.structs.asdict(content)
    values = msgspec.json.encode([fields.pop("before"), fields.pop("after")])
    digest = keyring.mac(values, b"latchkey audit values", key_id=key_id)
    return msgspec.json.encode([*fields.values(), digest.hex()])


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
