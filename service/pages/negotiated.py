"""A middleware that answers with a page in place of JSON where the client asks for HTML."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.request_state import request_state
from latchkey.service.pages.html import POLICY
from latchkey.service.pages.negotiation import prefers_html
from latchkey.service.problems import Problem

Render = Callable[[Mapping[str, Any]], str]
VARY = (b"vary", b"accept")


class PageMiddleware:
    """Render the JSON of a route as a page for a client that prefers HTML; every response varies with `Accept`.

    The problems of the route are pages too. It is for routes whose responses are small and complete.

    Args:
        app: the application of the route, whose responses are JSON.
        page: returns the page of a successful response.
        problem: returns the page of a problem.
    """

    def __init__(self, app: ASGIApp, *, page: Render, problem: Render) -> None:
        self.app = app
        self.page = page
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        accept = ", ".join(Headers(scope=scope).getlist("accept"))
        send_on = _Rendering(self, send) if prefers_html(accept) else _Varying(send)
        try:
            await self.app(scope, receive, send_on)
        except Problem as problem:
            await problem.response(request_state(scope).get("request_id"))(scope, receive, send_on)

    def render(self, status: int, content: bytes) -> bytes:
        """Return the page for the JSON of a response."""
        made = self.page if status < 400 else self.problem  # noqa: PLR2004 - RFC 9110, section 15.5
        return made(msgspec.json.decode(content)).encode()


class _Varying:
    """Send a response that another `Accept` would change."""

    def __init__(self, send: Send) -> None:
        self.send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], VARY]
        await self.send(message)


class _Rendering:
    """Collect a response, and send its page."""

    def __init__(self, middleware: PageMiddleware, send: Send) -> None:
        self.middleware = middleware
        self.send = send
        self.start: Message = {}
        self.content = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.content += message.get("body", b"")
        if message.get("more_body"):
            return
        page = self.middleware.render(self.start["status"], self.content)
        replaced = {b"content-type", b"content-length"}
        self.start["headers"] = [
            *(one for one in self.start["headers"] if one[0].lower() not in replaced),
            VARY,
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", b"%d" % len(page)),
            (b"content-security-policy", POLICY.encode()),
            (b"referrer-policy", b"no-referrer"),
        ]
        await self.send(self.start)
        await self.send({"type": "http.response.body", "body": page})
