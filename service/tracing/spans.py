"""The spans of OpenTelemetry: one for each request, and one for each statement in it. Only `opening.py` imports this module."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey import service
from latchkey.middleware.excerpt import excerpt
from latchkey.middleware.request_id import printable_method, printable_path
from latchkey.middleware.request_state import request_state
from latchkey.middleware.trace import Trace, run_in
from latchkey.service.usage.counting import route_of
from latchkey.service.usage.series import UNKNOWN_ROUTE

LONGEST_SQL = 4096  # characters
FIRST_SERVER_ERROR = 500
PROPAGATED = frozenset({b"traceparent", b"tracestate"})
_PROPAGATOR = TraceContextTextMapPropagator()


def open_provider() -> TracerProvider:
    """Return the provider of the process, or one that exports by OTLP over HTTP, as the variables `OTEL_*` say.

    A provider that a team's code or `opentelemetry-instrument` has set is used as it is.
    """
    found = trace.get_tracer_provider()
    if isinstance(found, TracerProvider):
        return found
    named = Resource.create({"service.name": "latchkey", "service.version": service.__version__})
    # The end of the application flushes it, within a bound; at the end of the process it could wait for long.
    made = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(made)
    return made


class Tracing:
    """The tracing of one application."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("latchkey", service.__version__)

    def middleware(self, client: Callable[[Scope], str | None]) -> Middleware:
        """Return the middleware that records requests; `client` returns the address of the client."""
        return Middleware(SpanMiddleware, tracing=self, client=client)

    @contextmanager
    def watch(self, dialect: str, sql: str) -> Iterator[None]:
        """Record a statement of a request that is recorded. Its text has placeholders in place of values."""
        if not trace.get_current_span().is_recording():
            yield
            return
        operation = sql.lstrip("( \n").partition(" ")[0].upper()
        attributes = {
            "db.system.name": dialect,
            "db.operation.name": operation,
            "db.query.text": excerpt(sql, LONGEST_SQL),
        }
        span = self.tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield
        except BaseException as error:
            # The message of an error may contain values of the statement.
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()

    async def flush(self) -> None:
        """Export the spans that wait. The thread is not waited for at the end of the process."""
        flushing = threading.Thread(target=self._provider.force_flush, name="flushing spans", daemon=True)
        flushing.start()
        while flushing.is_alive():  # noqa: ASYNC110 - a thread sets no event of the loop
            await asyncio.sleep(0.01)


class SpanMiddleware:
    """Record one span for each request, as a part of the caller's trace if it has a `traceparent`.

    The span has the raw path, but not the query, which may be signed.

    Args:
        tracing: of the application.
        client: returns the address of the client; None when it is unknown.
    """

    def __init__(self, app: ASGIApp, *, tracing: Tracing, client: Callable[[Scope], str | None]) -> None:
        self.app = app
        self.tracing = tracing
        self.client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        span = self.tracing.tracer.start_span(
            printable_method(scope), context=context_of(scope), kind=SpanKind.SERVER
        )
        token = context.attach(trace.set_span_in_context(span))
        try:
            await run_in(trace_of(span), self.app, scope, receive, note)
        finally:
            context.detach(token)
            if span.is_recording():
                self._describe(span, scope, status)
            span.end()

    def _describe(self, span: Span, scope: Scope, status: int) -> None:
        route, user = route_of(scope), scope.get("user")
        state = request_state(scope)
        found = {
            "http.request.method": printable_method(scope),
            "http.route": None if route == UNKNOWN_ROUTE else route.partition(" ")[2],
            "http.response.status_code": status or None,
            "url.path": printable_path(scope),
            "url.scheme": scope.get("scheme"),
            "client.address": self.client(scope),
            "latchkey.request_id": state.get("request_id"),
            "latchkey.access_key": user.identity if user is not None and user.is_authenticated else None,
            "latchkey.problem": state.get("problem_code"),
        }
        span.set_attributes({name: value for name, value in found.items() if value is not None})
        if route != UNKNOWN_ROUTE:
            span.update_name(route)
        if status >= FIRST_SERVER_ERROR or not status:
            span.set_status(StatusCode.ERROR)


def context_of(scope: Scope) -> context.Context:
    """Return the context of the caller's span; the empty one for a request without a trace."""
    given = [
        (name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name in PROPAGATED
    ]
    carrier = dict(given)
    return _PROPAGATOR.extract(carrier if len(carrier) == len(given) else {}, context.Context())


def trace_of(span: Span) -> Trace:
    """Return the trace of a span."""
    found = span.get_span_context()
    return Trace(
        trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id), f"{found.trace_flags:02x}"
    )
