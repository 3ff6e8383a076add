"""The metrics of a process, which each request and each second update.

Labels have few values: routes by their templates, codes, and fixed words. No label contains a part of a request.
"""

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Scope

from latchkey.middleware.measured import Measurement
from latchkey.service.authentication.state import call_state
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.pool import FairPool
from latchkey.service.usage.counting import route_of

STATE_EVERY_S = 1.0
DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LIMIT_CODES = frozenset({"rate_limited", "quota_exceeded", "credits_used_up", "cost_above_limit"})
SIGNATURE_CODES = frozenset({"unauthenticated", "replayed", "digest_mismatch", "coverage_required"})
SIGNING_HEADERS = frozenset({b"secret", b"signature", b"signature-input"})


class Metrics:
    """The metrics of one application in this process."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "latchkey_requests", "Requests that were answered.", ["route", "status"], registry=own
        )
        self.durations = Histogram(
            "latchkey_request_duration_seconds",
            "The time from the start of a request to the end of its response.",
            ["route"],
            buckets=DURATION_BUCKETS_S,
            registry=own,
        )
        self.round_trips = Counter(
            "latchkey_round_trips", "Commands that requests sent to the database.", ["route"], registry=own
        )
        self.problems = Counter("latchkey_problems", "Responses that are problems.", ["code"], registry=own)
        self.limits_refused = Counter(
            "latchkey_limits_refused",
            "Calls that a limit, a quota or credits refused.",
            ["code"],
            registry=own,
        )
        self.signatures_failed = Counter(
            "latchkey_signatures_failed",
            "Signed calls whose signature was refused.",
            ["reason"],
            registry=own,
        )
        self.retries = Counter(
            "latchkey_retries", "Repetitions of a unit of work after a conflict.", registry=own
        )
        self.lookups = Counter(
            "latchkey_key_cache_lookups", "Lookups of keys in the key cache.", ["result"], registry=own
        )
        self.sessions = gauge("latchkey_sessions_open", "Database sessions of running tasks.", own)
        self.pool_size = gauge("latchkey_pool_size", "Connections that a pool may open.", own, "pool")
        self.pool_used = gauge("latchkey_pool_checked_out", "Connections in use.", own, "pool")
        self.pool_waiting = gauge(
            "latchkey_pool_waiting", "Requests that wait for a connection.", own, "pool"
        )
        self._answered: dict[tuple[str, int], Counter] = {}
        self._routes: dict[str, tuple[Histogram, Counter]] = {}

    def note(self, scope: Scope, status: int, seconds: float, found: Measurement) -> None:
        """Count one request, as `MeasuredMiddleware` calls it."""
        route = route_of(scope)
        answered = self._answered.get((route, status))
        if answered is None:
            answered = self._answered[route, status] = self.requests.labels(route, status)
            self._routes[route] = self.durations.labels(route), self.round_trips.labels(route)
        answered.inc()
        duration, round_trips = self._routes[route]
        duration.observe(seconds)
        if found.round_trips:
            round_trips.inc(found.round_trips)
        if found.retries:
            self.retries.inc(found.retries)
        if found.cache_hits:
            self.lookups.labels("hit").inc(found.cache_hits)
        if found.cache_misses:
            self.lookups.labels("miss").inc(found.cache_misses)
        if status >= 400:  # noqa: PLR2004 - RFC 9110, section 15.5
            self._note_problem(scope)

    def _note_problem(self, scope: Scope) -> None:
        state = call_state(scope)
        code = state.get("problem_code")
        if code is None:
            return
        self.problems.labels(code).inc()
        if code in LIMIT_CODES:
            self.limits_refused.labels(code).inc()
        if code in SIGNATURE_CODES and any(name in SIGNING_HEADERS for name, _ in scope["headers"]):
            self.signatures_failed.labels(state.get("failure") or code).inc()

    def note_state(self, db: SQLAlchemy) -> None:
        """Set the gauges."""
        self.sessions.set(len(db.scoped_session.registry.registry))
        for name, engine in (("writer", db.engine), ("reader", db.reader), ("replica", db.replica)):
            pool = None if engine is None else engine.pool
            if isinstance(pool, FairPool):
                self.pool_size.labels(name).set(pool.size())
                self.pool_used.labels(name).set(pool.checkedout())
                self.pool_waiting.labels(name).set(pool.waiting())

    async def note_state_for_ever(self, db: SQLAlchemy) -> None:
        """Set the gauges every second until cancelled, for scrapes that another worker answers."""
        while True:
            self.note_state(db)
            await asyncio.sleep(STATE_EVERY_S)


def gauge(name: str, text: str, registry: CollectorRegistry, *labels: str) -> Gauge:
    """Return a gauge that is the sum of those of all running workers."""
    return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")
