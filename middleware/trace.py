"""The trace that a request belongs to, by the header `traceparent` (W3C Trace Context)."""

import re
from contextvars import ContextVar
from random import getrandbits
from typing import NamedTuple, Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"traceparent"
_SHAPE = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?P<span_id>(?!0{16})[0-9a-f]{16})"
    rb"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)


class Trace(NamedTuple):
    """The trace, and the span of the current request in it; all in hexadecimal, as in `traceparent`."""

    trace_id: str
    span_id: str
    flags: str

    @classmethod
    def continued(cls, scope: Scope) -> Self | None:
        """Return the trace of a request with a well-formed `traceparent`, with a new span id; None for any other."""
        given = [value for name, value in scope["headers"] if name == HEADER]
        found = _SHAPE.fullmatch(given[0]) if len(given) == 1 else None
        # Later versions may have more fields, which are dropped: ours is version 00.
        if found is None or (found["version"] == b"00" and found["more"] is not None):
            return None
        return cls(found["trace_id"].decode(), f"{getrandbits(64) or 1:016x}", found["flags"].decode())

    @property
    def traceparent(self) -> str:
        """Return the header for requests that this one causes."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


trace: ContextVar[Trace | None] = ContextVar("latchkey_trace", default=None)
"""The trace of the current request, for log lines and for requests to other services; None without one."""


class TraceMiddleware:
    """Continue the trace of a request that has a `traceparent`. Nothing is recorded: log lines name the trace."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        found = Trace.continued(scope) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
        else:
            await run_in(found, self.app, scope, receive, send)


async def run_in(found: Trace, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a request in a trace, and return the `traceparent` to the client and to a proxy that asks the gate."""
    header = HEADER, found.traceparent.encode()

    async def stamp(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), header]
        await send(message)

    token = trace.set(found)
    try:
        await app(scope, receive, stamp)
    finally:
        trace.reset(token)
