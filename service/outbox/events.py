"""Events: their types, their ids and their bodies.

A body names the row that changed and contains neither secrets nor personal data; a receiver that needs more reads it from
the API.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from latchkey.service import clock

EventType = Literal[
    "key.created",
    "key.changed",
    "key.rotated",
    "key.expiring",
    "key.expired",
    "key.revoked",
    "key.exposed",
    "key.deleted",
    "quota.reached",
    "user.created",
    "user.changed",
    "user.blocked",
    "user.unblocked",
    "user.deleted",
]
TYPES: frozenset[str] = frozenset(get_args(EventType))
PING = "webhook.ping"

KEY_FIELDS = ("access_key", "user_id", "external_id", "status", "secret_version", "expires_at")
USER_FIELDS = ("id", "external_id", "status")

_encoder = msgspec.json.Encoder()


class Event(msgspec.Struct, frozen=True):
    """Something that has happened, for all webhooks that listen to its type."""

    id: str
    """The same in every attempt, so that a receiver recognizes an event that it got before."""
    type: str
    moment: datetime
    payload: bytes
    """The body of the request."""


def new_event(type: str, data: Mapping[str, Any]) -> Event:
    """Return an event of this moment.

    Args:
        type: one of `TYPES`, or `PING`.
        data: what the event is about.
    """
    moment = clock.now()
    body = {"type": type, "timestamp": moment, "data": data}
    return Event(new_id(), type, moment, _encoder.encode(body))


def new_id() -> str:
    """Return a new id: the milliseconds since 1970 and 80 random bits, in hexadecimal."""
    return f"evt_{int(clock.unix_s() * 1000):012x}{secrets.token_hex(10)}"
