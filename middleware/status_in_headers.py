"""Convert refusals for a proxy that passes on only some statuses."""

import json
from collections.abc import Collection, MutableMapping
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.excerpt import excerpt
from latchkey.middleware.root_path import path_in_app

LONGEST_PROBLEM = 2000  # bytes; nginx reads all headers of a response into 4 or 8 KiB
LONGEST_DETAIL = 300


class StatusInHeadersMiddleware:
    """Send every response of some paths with one of the statuses that the proxy passes on.

    Any other refusal becomes a 403. All refusals, whatever their status, have three headers: `x-latchkey-status` is the
    real status, `x-latchkey-code` the code of the problem and `x-latchkey-problem` its body, as JSON in ASCII.
    The middleware must be outside everything that answers.

    Args:
        paths: the paths whose responses are changed.
        passed: the statuses, beside 2xx, that stay.
    """

    def __init__(self, app: ASGIApp, *, paths: Collection[str], passed: Collection[int]) -> None:
        self.app = app
        self.paths = paths
        self.passed = passed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http" or path_in_app(scope) not in self.paths:
            await self.app(scope, receive, send)
            return
        start: MutableMapping[str, Any] | None = None
        content = b""

        async def carry(message: Message) -> None:
            nonlocal start, content
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.MULTIPLE_CHOICES:
                start = message
                return
            if start is None:
                await send(message)
                return
            content += message.get("body", b"")
            if message.get("more_body", False):
                return
            carried = refusal_headers(start["status"], content)
            status = start["status"] if start["status"] in self.passed else HTTPStatus.FORBIDDEN
            await send({**start, "status": int(status), "headers": [*start["headers"], *carried]})
            await send({"type": "http.response.body", "body": content})

        await self.app(scope, receive, carry)


def refusal_headers(status: int, content: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that carry a refusal; a response that is no problem has only its status."""
    found: list[tuple[bytes, bytes]] = [(b"x-latchkey-status", str(status).encode())]
    try:
        problem = json.loads(content)
    except ValueError:
        return found
    text = json.dumps(problem)
    if len(text) > LONGEST_PROBLEM:
        problem["detail"] = excerpt(problem["detail"], LONGEST_DETAIL)
        text = json.dumps(problem)
    return [
        *found,
        (b"x-latchkey-code", problem["code"].encode()),
        (b"x-latchkey-problem", text.encode()),
    ]
