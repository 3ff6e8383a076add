"""Verify the webhooks of Latchkey, which follow the Standard Webhooks specification."""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

TOLERANCE_S = 300


class WebhookError(Exception):
    """The request was not sent by Latchkey, or is too old; answer it with 400."""


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes, *, now: float | None = None
) -> dict[str, Any]:
    """Return the event of a webhook, or raise WebhookError.

    Args:
        secret: of the webhook, `whsec_…`.
        headers: of the request, in any letter case.
        body: the bytes of the request as they arrived, not decoded.
        now: Unix time in seconds; None means the current time.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        event_id, timestamp = given["webhook-id"], given["webhook-timestamp"]
        signatures = given["webhook-signature"].split(" ")
    except KeyError as missing:
        raise WebhookError(f"The header {missing} is missing.") from None
    now = time.time() if now is None else now
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE_S:
        raise WebhookError("The timestamp is more than five minutes away.")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{event_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(key, text, "sha256"))
    if not any(hmac.compare_digest(one.encode(), expected) for one in signatures):
        raise WebhookError("No signature is valid.")
    event: dict[str, Any] = json.loads(body)
    return event
