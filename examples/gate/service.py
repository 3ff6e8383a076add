"""A service that knows nothing of keys: it reads its caller from the headers of the gate.

    uvicorn service:app --port 9000

Only the proxy may reach it: anyone else could send these headers.
"""

import hashlib
import hmac
import json
from typing import Any

Message = dict[str, Any]


async def app(scope: Message, receive: Any, send: Any) -> None:
    """Return the request to its sender, as the service received it."""
    if scope["type"] != "http":
        return
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    digest, length = hashlib.sha256(), 0
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        length += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    # nginx and Caddy ask the gate without the body. This comparison proves it, if the request is signed.
    signed = headers.get("x-latchkey-content-sha256")
    if signed and not hmac.compare_digest(signed, digest.hexdigest()):
        await answer(send, 401, {"error": "the body is not the one that was signed"})
        return
    await answer(
        send,
        200,
        {
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "body_bytes": length,
            "gate": {name: value for name, value in headers.items() if name.startswith("x-latchkey")},
            "credentials": sorted({"authorization", "secret"} & headers.keys()),
        },
    )


async def answer(send: Any, status: int, content: Any) -> None:
    """Send an answer in JSON."""
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
