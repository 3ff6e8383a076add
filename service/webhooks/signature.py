"""The signature of a delivery, as the Standard Webhooks specification defines it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
import secrets
from collections.abc import Sequence
from typing import NewType

WebhookSecret = NewType("WebhookSecret", str)
"""`whsec_` and the key of the HMAC in base64."""

PREFIX = "whsec_"
KEY_BYTES = 32  # the specification allows 24 to 64


def new_secret() -> WebhookSecret:
    """Return a new secret."""
    return WebhookSecret(PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())


def headers_of(
    event_id: str, payload: bytes, signers: Sequence[WebhookSecret], timestamp: int
) -> list[tuple[str, str]]:
    """Return the headers that identify and sign one attempt to deliver an event.

    Args:
        event_id: the same in every attempt.
        payload: the body, byte by byte.
        signers: the current secret, and during a rotation the replaced one.
        timestamp: the time of the attempt, in seconds since 1970.
    """
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp, payload)
    return [
        ("webhook-id", event_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(f"v1,{mac_of(one, signed)}" for one in signers)),
    ]


def mac_of(secret: WebhookSecret, signed: bytes) -> str:
    """Return the HMAC-SHA256 of a text, in base64."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
