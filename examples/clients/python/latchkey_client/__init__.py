"""Signed calls to Latchkey, and the verification of its webhooks.

`latchkey_client.httpx`, `latchkey_client.httpx2` and `latchkey_client.requests` each have a class `LatchkeyAuth` for the
library of that name. This module needs the standard library only.
"""

from latchkey_client.attempts import Attempts
from latchkey_client.signer import Form, Signer
from latchkey_client.webhooks import WebhookError, verify_webhook

__all__ = ["Attempts", "Form", "Signer", "WebhookError", "verify_webhook"]
