"""Measure each request: its duration, and what other parts of the service note about it on the way."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Measurement:
    """What was noted about one request; also by tasks that it started."""

    __slots__ = ("began", "cache_hits", "cache_misses", "retries", "round_trips", "statement_s", "statements")

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.round_trips = 0
        self.retries = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self.statements = 0
        self.statement_s = 0.0

    def seconds(self) -> float:
        """Return the time since the request began."""
        return time.perf_counter() - self.began


measurement: ContextVar[Measurement | None] = ContextVar("latchkey_measurement", default=None)
"""The measurement of the current request; None outside one."""


def note_round_trip() -> None:
    """Count a command that the current request sends to the database."""
    if (found := measurement.get()) is not None:
        found.round_trips += 1


@contextmanager
def time_statement(_dialect: str, _sql: str) -> Iterator[None]:
    """Measure a statement of the current request."""
    if (found := measurement.get()) is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        found.statements += 1
        found.statement_s += time.perf_counter() - began


def note_retry() -> None:
    """Count a repetition of the unit of work of the current request."""
    if (found := measurement.get()) is not None:
        found.retries += 1


def note_lookup(*, is_hit: bool) -> None:
    """Count a lookup of the current request in the key cache."""
    if (found := measurement.get()) is None:
        return
    if is_hit:
        found.cache_hits += 1
    else:
        found.cache_misses += 1


Note = Callable[[Scope, int, float, Measurement], None]


class MeasuredMiddleware:
    """Call `note(scope, status, seconds, measurement)` once for each request, just before its last byte is sent.

    A client that has the whole response therefore finds it counted. A request whose response was begun and not ended is
    noted when it ends, and one without a response is not noted.
    """

    def __init__(self, app: ASGIApp, *, note: Note) -> None:
        self.app = app
        self.note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        found = Measurement()
        status = 0

        async def measure(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status and not message.get("more_body"):
                self.note(scope, status, found.seconds(), found)
                status = 0
            await send(message)

        token = measurement.set(found)
        try:
            await self.app(scope, receive, measure)
        finally:
            measurement.reset(token)
            if status:
                self.note(scope, status, found.seconds(), found)
