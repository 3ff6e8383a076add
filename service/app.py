"""The application: its parts, and the list of middleware, from the outermost to the innermost."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Route
from starlette.types import Scope

from latchkey.middleware import background
from latchkey.middleware.access_log import AccessLogMiddleware
from latchkey.middleware.answer_headers import AnswerHeadersMiddleware
from latchkey.middleware.body_deadline import BodyDeadlineMiddleware
from latchkey.middleware.body_limit import BodyLimitMiddleware
from latchkey.middleware.content_digest import ContentDigestMiddleware
from latchkey.middleware.gate import GateMiddleware
from latchkey.middleware.request_id import RequestIDMiddleware
from latchkey.middleware.session import SessionMiddleware
from latchkey.middleware.whole_body import WholeBodyMiddleware
from latchkey.service import housekeeping, logs, openapi
from latchkey.service.authentication import canary, lookup
from latchkey.service.authentication.anonymous import OptionalKeyMiddleware
from latchkey.service.authentication.backend import KeyBackend, Verifier, answer_refusal
from latchkey.service.authentication.failures import Failures
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.replay import Replays
from latchkey.service.authentication.retirement import retirement_headers
from latchkey.service.connections.adoption import bound_connections, is_beside_uvicorn, serving_config
from latchkey.service.connections.bounds import Bounds
from latchkey.service.connections.guard import ServerGuardMiddleware
from latchkey.service.connections.refusals import Refusals
from latchkey.service.database import SQLAlchemy, cluster, schema
from latchkey.service.database.schema import Schema
from latchkey.service.declaration import Declaration, declare, is_only_declared
from latchkey.service.endpoints.adapter import Adapter
from latchkey.service.exception_handlers import answer_failure, answer_http_exception, answer_problem
from latchkey.service.idempotency.allowance import Allowance
from latchkey.service.idempotency.claims import Idempotency
from latchkey.service.key_cache.cache import KeyCache
from latchkey.service.key_cache.channel import open_channel
from latchkey.service.key_cache.revocations import Revocations
from latchkey.service.keys.issuing import Issuer
from latchkey.service.keys.last_used import LastUsed
from latchkey.service.keys.rules import KeyRules
from latchkey.service.limits.charger import Charger
from latchkey.service.limits.counters import Counters
from latchkey.service.limits.gate import Limits
from latchkey.service.limits.headers import Headers
from latchkey.service.methods import SAFE_METHODS
from latchkey.service.networks import NetworkError, Proxies
from latchkey.service.operation import Operation, RouteError, checked_scope
from latchkey.service.problems import Problem
from latchkey.service.problems.registry import ProblemType, UnknownProblemError, known, register
from latchkey.service.router import ConvertedRoute, IndexedRouter
from latchkey.service.routes import ROUTES, declared_scopes
from latchkey.service.settings import Settings, SettingsError
from latchkey.service.shutdown import CLOSING_S, SHUTDOWN_S, end_on_second_signal, run_steps

NO_SNIFFING = (b"x-content-type-options", b"nosniff")
PRIVATE = (b"cache-control", b"private, no-store")
BACKGROUND_GRACE_S = 10.0  # how long background work may continue after the last request
STOP_AGAIN_S = 1.0  # how long a cancelled task may take to clean up before it is cancelled again


def create_app(
    settings: Settings | None = None,
    *,
    routes: Iterable[Operation] = (),
    problems: Iterable[ProblemType] = (),
    schemas: Iterable[Schema] = (),
    scopes: Iterable[str] = (),
) -> Starlette:
    """Build the application and open its database object; no connection is opened before it starts.

    Args:
        settings: None reads the environment.
        routes: a team's own, each created by `latchkey.service.operation.route`; they get the same sessions,
            authentication and errors as Latchkey's.
        problems: a team's own errors, raised with `Problem(code)`; they are listed in OpenAPI and under `/problems/`.
        schemas: a team's own tables and migrations; the application refuses a database that lacks them.
        scopes: scopes that no route requires and that an endpoint checks itself, so that keys can have them.

    Raises:
        ProblemTypeError: a problem has a wrong form, or its code is taken.
        SettingsError: a setting is wrong, or there is no key ring.
        RouteError: a route does not declare its callers, or is declared twice; or a scope has a wrong form.
        SchemaError: two schemas have the same name, or a table belongs to two of them.
    """
    settings = settings or Settings.from_env(os.environ)
    if is_only_declared():
        keyring = KeyRing.from_text(settings.keyring or KeyRing.generate_text())
    else:
        logs.configure(settings.log_format)
        keyring = open_keyring(settings)
    proxies = read_proxies(settings)
    channel = open_channel(settings)
    operations = (*ROUTES, *routes)
    schemas = tuple(schemas)
    register(problems)
    require_distinct(operations)
    schema.require_distinct_schemas(schemas)
    declared = declared_scopes(operations) | frozenset(map(checked_scope, scopes))

    db = SQLAlchemy()
    last_used = LastUsed(db)
    key_cache = KeyCache(settings.key_cache_ttl_s)
    verifier = Verifier(
        keyring=keyring,
        keys=key_cache if settings.key_cache_ttl_s else lookup,
        prefix=settings.key_prefix,
        window_s=settings.clock_window_s,
        public_authority=settings.public_authority,
        note_use=last_used.note,
        note_old_use=last_used.note_old,
        proxies=proxies,
        failures=Failures(settings.auth_failures_per_min),
    )
    replays = Replays(lambda: db.reader, settings.clock_window_s, clock=lambda: verifier.moment().timestamp())
    charger = Charger(Counters(lambda: db.reader))
    idempotency = Idempotency(lambda: db.reader, Allowance(charger, settings.stored_answers_per_key))
    limits = Limits(charger, settings.limits_on_outage, exempt=idempotency.has_answer)
    app = Starlette(
        exception_handlers={Problem: answer_problem, HTTPException: answer_http_exception},
    )
    app.router = IndexedRouter(
        [
            make_route(operation, route_middleware(operation, verifier, replays, limits))
            for operation in operations
        ],
        lifespan=lifespan,
    )
    app.state.bounds = Bounds.of(settings)
    app.state.trusts_server = False
    app.state.keyring = keyring
    app.state.key_rules = KeyRules(Issuer(settings.key_prefix, keyring), declared, settings.keys_per_owner)
    app.state.verifier = verifier
    app.state.replays = replays
    app.state.idempotency = idempotency
    app.state.limits = limits
    app.state.last_used = last_used
    app.state.revocations = revocations = Revocations(key_cache, channel)
    app.state.schemas = schemas
    app.state.openapi = msgspec.json.encode(openapi.document(operations))
    db.init_app(app, settings)
    if settings.key_cache_ttl_s or channel is not None:
        db.watch(revocations.announce)
    corridor = [
        Middleware(AnswerHeadersMiddleware, headers=partial(answer_headers, limits)),
        Middleware(RequestIDMiddleware, last_resort=Problem("internal_error"), interrupted=interruption),
        Middleware(
            ServerGuardMiddleware,
            trusts_server=lambda: app.state.trusts_server or not is_beside_uvicorn(),
            problem=Problem("server_not_started", headers={"connection": "close"}),
            refusals=Refusals(),
        ),
        Middleware(AccessLogMiddleware, client=proxies.client_text),
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
            scoped_session=db.scoped_session,
            problem=answer_failure,
            stream_timeout_s=settings.stream_timeout_s,
        ),
    ]
    for one in reversed(corridor):  # the middleware that is added last is the outermost
        app.add_middleware(one.cls, *one.args, **one.kwargs)
    declare(Declaration(app=app, settings=settings, operations=operations, schemas=schemas, scopes=declared))
    return app


def route_middleware(
    operation: Operation, verifier: Verifier, replays: Replays, limits: Limits
) -> list[Middleware]:
    """Return the middleware of a route, depending on its permitted callers."""
    if operation.public:
        return []
    private = private_middleware(operation, verifier, replays, limits)
    return [Middleware(OptionalKeyMiddleware, private=private)] if operation.optional_key else private


def private_middleware(
    operation: Operation, verifier: Verifier, replays: Replays, limits: Limits
) -> list[Middleware]:
    """Return the middleware of a private route, in this order.

    The body is read first. Then the caller is authenticated, the body compared with the signature, the nonce reserved, and
    the limits charged.
    """
    corridor = [
        Middleware(WholeBodyMiddleware, hopeless=verifier.is_hopeless),
        Middleware(
            AuthenticationMiddleware,
            backend=KeyBackend(verifier, operation.scope),
            on_error=answer_refusal,
        ),
        Middleware(ContentDigestMiddleware, expected=signed_digest, problem=Problem("digest_mismatch")),
    ]
    reserve = Middleware(GateMiddleware, refusal=replays.refusal)
    if not operation.cost:
        return [*corridor, reserve]
    return [
        *corridor,
        Middleware(GateMiddleware, refusal=partial(limits.exhausted, cost=operation.cost)),
        reserve,
        Middleware(GateMiddleware, refusal=partial(limits.refusal, cost=operation.cost)),
    ]


def make_route(operation: Operation, middleware: Sequence[Middleware]) -> Route:
    """Return the Starlette route of an operation."""
    made = ConvertedRoute(
        operation.path,
        Adapter(operation),
        methods=[operation.method],
        name=operation.name,
        middleware=middleware,
    )
    # Starlette ends its patterns with $, which also matches before a final newline: /v1/me%0A must not match.
    made.path_regex = re.compile(made.path_regex.pattern.removesuffix("$") + r"\Z")
    return made


async def answer_headers(limits: Limits, scope: Scope) -> Headers:
    """Return the headers that depend on the state of a call, and those of every answer.

    A shared cache may store any answer that does not forbid it: RFC 9111, section 3.5, protects only answers to requests
    with `Authorization`, and a signed call has none.
    """
    found = [NO_SNIFFING, *retirement_headers(scope), *await limits.headers(scope)]
    if scope.get("state", {}).get("is_private"):
        found.append(PRIVATE)
    return found


def interruption(scope: Scope) -> Problem:
    """Return the answer to a request that the end of a shutdown interrupts."""
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


def open_keyring(settings: Settings) -> KeyRing:
    """Return the key ring, which has no default, because publicly known keys protect nothing."""
    if settings.keyring is None:
        raise SettingsError("LATCHKEY_KEYRING is not set: `latchkey keyring` prints a new one; keep it safe.")
    try:
        return KeyRing.from_text(settings.keyring)
    except ValueError as error:
        raise SettingsError(f"LATCHKEY_KEYRING: {error}") from None


def read_proxies(settings: Settings) -> Proxies:
    """Return the proxies that may set the client address; without any, the client is the peer."""
    if settings.trusted_proxies is None:
        return Proxies()
    try:
        return Proxies.from_text(settings.trusted_proxies)
    except NetworkError as error:
        raise SettingsError(f"LATCHKEY_TRUSTED_PROXIES: {error}.") from None


def require_distinct(operations: Iterable[Operation]) -> None:
    """Raise an error for a value that is not an operation, and for two operations at the same place."""
    seen: set[tuple[str, str]] = set()
    for operation in operations:
        if not isinstance(operation, Operation):
            raise RouteError(
                f"{operation!r} was not created by `latchkey.service.operation.route`, so its callers are not declared."
            )
        place = (
            operation.method,
            re.sub(r"{\w+", "{", operation.path),
        )  # regardless of the names of its parameters
        if place in seen:
            raise RouteError(f"{operation.method} {operation.path} is declared twice.")
        seen.add(place)
        if unknown := sorted(set(operation.problems) - known().keys()):
            raise RouteError(f"{operation.method} {operation.path}: {UnknownProblemError(unknown[0])}")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Check the database and its key ring, run the tasks beside requests, and close everything in order (R12)."""
    db: SQLAlchemy = app.state.db
    if not db.is_open:
        raise RuntimeError("this application was closed: create a new one with create_app().")
    try:
        bound_connections(app.state.bounds)
        if serving_config() is not None:
            end_on_second_signal()
        app.state.trusts_server = not is_beside_uvicorn()
        await schema.require_migrated(db.engine, app.state.schemas)
        await canary.require_right(db.engine, app.state.keyring)
        await cluster.warn_of_stale_reads(db.reader)
        last_used: LastUsed = app.state.last_used
        revocations: Revocations = app.state.revocations
        tasks = [
            asyncio.create_task(revocations.follow(), name="revocations"),
            asyncio.create_task(last_used.write_for_ever(), name="last used"),
            asyncio.create_task(housekeeping.purge_for_ever(db), name="housekeeping"),
        ]
        try:
            yield
        finally:
            await run_steps(
                [
                    ("background work", partial(background.finish, BACKGROUND_GRACE_S)),
                    ("the work beside requests", partial(stop, tasks)),
                    ("the revocation channel", revocations.close),
                    ("writing the last uses of keys", last_used.write),
                    ("reserving nonces", app.state.replays.close),
                    ("charging limits", app.state.limits.close),
                ],
                within_s=SHUTDOWN_S - CLOSING_S,
            )
    finally:
        await run_steps([("closing the database", db.close)], within_s=CLOSING_S)


async def stop(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    One cancellation may not be enough: before Python 3.12 a driver that waits with `asyncio.wait_for` can lose it.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=STOP_AGAIN_S)
