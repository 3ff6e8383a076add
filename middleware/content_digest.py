"""Check that the body is the one that was signed."""

import hashlib
import hmac
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.whole_body import read_body


class ContentDigestMiddleware:
    """Check the body against the SHA-256 that the signature covers, before the endpoint gets any of it.

    `expected(scope)` returns the digest, or None when nothing covers the body; then the body is not read here.
    Otherwise the whole body is read, even if the endpoint reads none, and passed on if its digest matches. If it does
    not match, the ASGI application `problem` answers. The middleware belongs inside the body limit.
    """

    def __init__(self, app: ASGIApp, *, expected: Callable[[Scope], bytes | None], problem: ASGIApp) -> None:
        self.app = app
        self.expected = expected
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one body."""
        digest = self.expected(scope) if scope["type"] == "http" else None
        if digest is None:
            await self.app(scope, receive, send)
            return
        body = await read_body(receive)
        if not hmac.compare_digest(hashlib.sha256(body).digest(), digest):
            await self.problem(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, replay, send)
