"""The middleware of the application and of its routes, each list from the outermost to the innermost."""

import re
from collections.abc import Sequence
from functools import partial

from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Route
from starlette.types import Scope

from latchkey.middleware.access_log import AccessLogMiddleware
from latchkey.middleware.answer_headers import AnswerHeadersMiddleware
from latchkey.middleware.answered import AnsweredMiddleware
from latchkey.middleware.body_deadline import BodyDeadlineMiddleware
from latchkey.middleware.body_limit import BodyLimitMiddleware
from latchkey.middleware.content_digest import ContentDigestMiddleware
from latchkey.middleware.measured import MeasuredMiddleware, Measurement, measurement
from latchkey.middleware.refusal import RefusalMiddleware
from latchkey.middleware.request_id import RequestIDMiddleware
from latchkey.middleware.root_path import RootPathMiddleware
from latchkey.middleware.session import SessionMiddleware
from latchkey.middleware.status_in_headers import StatusInHeadersMiddleware
from latchkey.middleware.trace import TraceMiddleware
from latchkey.middleware.whole_body import WholeBodyMiddleware
from latchkey.service.authentication.anonymous import OptionalKeyMiddleware
from latchkey.service.authentication.backend import KeyBackend, answer_refusal
from latchkey.service.authentication.state import call_state
from latchkey.service.connections.guard import ServerGuardMiddleware
from latchkey.service.connections.refusals import Refusals
from latchkey.service.endpoints.adapter import Adapter
from latchkey.service.exception_handlers import answer_failure
from latchkey.service.limits.enforcement import Limits
from latchkey.service.limits.headers import Headers
from latchkey.service.methods import SAFE_METHODS
from latchkey.service.operation import Operation
from latchkey.service.pages import html
from latchkey.service.pages.negotiated import PageMiddleware
from latchkey.service.parts import Parts
from latchkey.service.problems import Problem
from latchkey.service.router import ConvertedRoute
from latchkey.service.settings import Settings

NO_SNIFFING = (b"x-content-type-options", b"nosniff")
PRIVATE = (b"cache-control", b"private, no-store")
NGINX_PATHS = frozenset({"/v1/gate/nginx"})
NGINX_PASSES = frozenset(
    {401, 403}
)  # beside 2xx: ngx_http_auth_request_module turns any other status into a 500


def application_middleware(parts: Parts, settings: Settings) -> list[Middleware]:
    """Return the middleware of every path."""
    return [
        Middleware(RootPathMiddleware, path=settings.root_path or ""),
        Middleware(MeasuredMiddleware, note=parts.metrics.note),
        Middleware(StatusInHeadersMiddleware, paths=NGINX_PATHS, passed=NGINX_PASSES),
        Middleware(
            AnswerHeadersMiddleware,
            headers=partial(answer_headers, parts.limits, server_timing=settings.server_timing),
        ),
        Middleware(AnsweredMiddleware, note=parts.usage.note_answer),
        trace_middleware(parts),
        Middleware(RequestIDMiddleware, last_resort=Problem("internal_error"), interrupted=interruption),
        Middleware(
            ServerGuardMiddleware,
            trusts_server=parts.server_trust,
            problem=Problem("server_not_started", headers={"connection": "close"}),
            refusals=Refusals(),
        ),
        Middleware(AccessLogMiddleware, client=parts.verifier.proxies.client_text),
        Middleware(
            BodyDeadlineMiddleware,
            timeout_s=settings.body_timeout_s,
            problem=Problem("body_timeout", headers={"connection": "close"}),
        ),
        Middleware(
            BodyLimitMiddleware, limit_bytes=settings.body_limit_bytes, problem=Problem("body_too_large")
        ),
        Middleware(
            SessionMiddleware,
            scoped_session=parts.db.scoped_session,
            problem=answer_failure,
            stream_timeout_s=settings.stream_timeout_s,
        ),
    ]


def trace_middleware(parts: Parts) -> Middleware:
    """Return the middleware that continues the trace of a request, and records it if tracing is on."""
    if parts.tracing is None:
        return Middleware(TraceMiddleware)
    return parts.tracing.middleware(parts.verifier.proxies.client_text)


def route_middleware(operation: Operation, parts: Parts) -> list[Middleware]:
    """Return the middleware of a route, depending on its permitted callers."""
    if operation.any_request:
        # A body that the proxy passes on is complete before the request that it belongs to is authenticated.
        return [Middleware(WholeBodyMiddleware, is_refused=lambda scope: not parts.gate.trusts(scope))]
    if operation.page is not None:
        return [Middleware(PageMiddleware, page=operation.page, problem=html.problem)]
    if operation.public:
        return []
    private = private_middleware(operation, parts)
    return (
        [Middleware(OptionalKeyMiddleware, private=private, key_headers=parts.verifier.key_headers)]
        if operation.optional_key
        else private
    )


def private_middleware(operation: Operation, parts: Parts) -> list[Middleware]:
    """Return the middleware of a private route, in this order.

    The body is read first. Then the caller is authenticated, the body compared with the signature, the nonce reserved, and
    the limits charged.
    """
    before = [
        Middleware(WholeBodyMiddleware, is_refused=parts.verifier.is_refused_by_shape),
        Middleware(
            AuthenticationMiddleware,
            backend=KeyBackend(parts.verifier, operation.scope),
            on_error=answer_refusal,
        ),
        Middleware(ContentDigestMiddleware, expected=signed_digest, problem=Problem("digest_mismatch")),
    ]
    reserve = Middleware(RefusalMiddleware, refusal=parts.replays.refusal)
    if not operation.cost:
        return [*before, reserve]
    return [
        *before,
        Middleware(RefusalMiddleware, refusal=partial(parts.limits.exhausted, cost=operation.cost)),
        reserve,
        Middleware(RefusalMiddleware, refusal=partial(parts.limits.refusal, cost=operation.cost)),
    ]


def make_route(operation: Operation, middleware: Sequence[Middleware]) -> Route:
    """Return the Starlette route of an operation."""
    made = ConvertedRoute(
        operation.path,
        Adapter(operation),
        methods=None if operation.any_request else [operation.method],
        name=operation.name,
        middleware=middleware,
    )
    made.label = f"{operation.method} {operation.path}"
    # Starlette ends its patterns with $, which also matches before a final newline: /v1/me%0A must not match.
    made.path_regex = re.compile(made.path_regex.pattern.removesuffix("$") + r"\Z")
    return made


async def answer_headers(limits: Limits, scope: Scope, *, server_timing: bool) -> Headers:
    """Return the headers that depend on the state of a call, and those of every response.

    A shared cache may store any response that does not forbid it: RFC 9111, section 3.5, protects only responses to requests
    with `Authorization`, and a signed call has none.
    """
    found = [NO_SNIFFING, *retirement_headers(scope), *await limits.headers(scope)]
    if call_state(scope).get("is_private"):
        found.append(PRIVATE)
    if server_timing:
        found.append(timing_header())
    return found


def timing_header() -> tuple[bytes, bytes]:
    """Return the times that the current request took until its response starts, in milliseconds."""
    found = measurement.get() or Measurement()
    database = f'db;dur={found.statement_s * 1000:.1f};desc="statements: {found.statements}"'
    return b"server-timing", f"{database}, total;dur={found.seconds() * 1000:.1f}".encode()


def retirement_headers(scope: Scope) -> Headers:
    """Return the headers of a response to a call with a replaced secret; for any other call there are none."""
    retirement = call_state(scope).get("retirement")
    return [] if retirement is None else retirement.headers()


def interruption(scope: Scope) -> Problem:
    """Return the response to a request that the end of a shutdown interrupts."""
    if scope["method"] in SAFE_METHODS:
        return Problem("unavailable", "The service is shutting down.")
    return Problem(
        "commit_unknown",
        "The service was shut down before the call ended, so the change may be stored or not.",
    )


def signed_digest(scope: Scope) -> bytes | None:
    """Return the SHA-256 of the body that the caller's signature covers."""
    digest: bytes | None = scope["user"].content_sha256
    return digest
