"""Drive the Python client: the commands are those of every driver in this folder.

    mac SECRET TEXT…
    sign FORM METHOD URL BODY CONTENT_TYPE IDEMPOTENCY_KEY NOW NONCE
    call FORM METHOD URL BODY OFFSET_S       OFFSET_S is how far the client's clock is ahead
    verify SECRET ID TIMESTAMP SIGNATURE     the body is standard input

An empty argument stands for none. `sign` prints the URL and the headers that it adds, `call` the status and the body.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import requests

from latchkey_client import Signer, WebhookError, verify_webhook
from latchkey_client.httpx import LatchkeyAuth as HttpxAuth
from latchkey_client.httpx2 import LatchkeyAuth as Httpx2Auth
from latchkey_client.requests import LatchkeyAuth as RequestsAuth

KEY = "lka_0000000000000000000000"
JSON = {"content-type": "application/json"}

Send = Callable[[str, str, bytes, dict[str, Any]], Any]


def by_httpx(method: str, url: str, body: bytes, auth: dict[str, Any]) -> Any:
    with httpx.Client(auth=HttpxAuth(**auth)) as client:
        return client.request(method, url, content=body, headers=JSON if body else None)


def by_httpx2(method: str, url: str, body: bytes, auth: dict[str, Any]) -> Any:
    async def send() -> Any:
        async with httpx2.AsyncClient(auth=Httpx2Auth(**auth)) as client:
            return await client.request(method, url, content=body, headers=JSON if body else None)

    return asyncio.run(send())


def by_requests(method: str, url: str, body: bytes, auth: dict[str, Any]) -> Any:
    with requests.Session() as session:
        return session.request(
            method, url, data=body, headers=JSON if body else None, auth=RequestsAuth(**auth)
        )


def drive(arguments: list[str], stdin: bytes, environ: dict[str, str], send: Send) -> str:
    """Carry out one command, and return what it prints."""
    match arguments:
        case ["mac", secret, *texts]:
            return "\n".join(map(Signer(KEY, secret).mac, texts))
        case ["sign", form, method, url, body, content_type, idempotency_key, now, nonce]:
            signer = Signer(
                environ["KEY"], environ["SECRET"], form=form, clock=lambda: float(now)  # type: ignore[arg-type]
            )  # fmt: skip
            given = {"content-type": content_type, "idempotency-key": idempotency_key}
            headers = {name: value for name, value in given.items() if value}
            signed, added = signer.sign(method, url, headers, body.encode(), nonce=nonce)
            return "\n".join([signed, *(f"{name}: {value}" for name, value in added.items())])
        case ["call", form, method, url, body, offset_s]:
            auth = {
                "access_key": environ["KEY"],
                "secret": environ["SECRET"],
                "form": form,
                "clock": lambda: time.time() + float(offset_s),
            }
            response = send(method, url, body.encode(), auth)
            return f"{response.status_code}\n{response.text}"
        case ["verify", secret, event_id, timestamp, signature]:
            headers = {
                "Webhook-Id": event_id,
                "Webhook-Timestamp": timestamp,
                "Webhook-Signature": signature,
            }
            try:
                return f"valid {verify_webhook(secret, headers, stdin)['type']}"
            except WebhookError:
                return "invalid"
        case _:
            raise ValueError(arguments)
