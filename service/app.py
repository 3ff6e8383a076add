"""The application: `create_app` builds its parts and connects them."""

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from latchkey.middleware.measured import time_statement
from latchkey.service import logs, openapi
from latchkey.service.audit.sealer import Sealer
from latchkey.service.authentication import lookup
from latchkey.service.authentication.failures import Failures
from latchkey.service.authentication.imported_formats import read_imported_formats
from latchkey.service.authentication.keyring import KeyRing, open_keyring
from latchkey.service.authentication.nonces import DatabaseNonces, Nonces, RedisNonces
from latchkey.service.authentication.replay import SKEW_S, Replays
from latchkey.service.authentication.verifier import Verifier
from latchkey.service.connections.adoption import ServerTrust
from latchkey.service.connections.bounds import Bounds
from latchkey.service.database import SQLAlchemy, schema
from latchkey.service.database.schema import Schema
from latchkey.service.database.watched import Watch, watch_statements
from latchkey.service.declaration import Declaration, declare, is_only_declared
from latchkey.service.exception_handlers import answer_http_exception, answer_problem
from latchkey.service.gate.decision import Gate
from latchkey.service.gate.in_force import RulesInForce
from latchkey.service.gate.rules import GateRulesError, Rules, read_rules
from latchkey.service.idempotency.allowance import Allowance
from latchkey.service.idempotency.claims import Idempotency
from latchkey.service.key_cache.cache import KeyCache
from latchkey.service.key_cache.channel import open_channel
from latchkey.service.key_cache.revocations import Revocations
from latchkey.service.keys.issuing import Issuer
from latchkey.service.keys.last_used import LastUsed
from latchkey.service.keys.rules import KeyRules
from latchkey.service.leaks.exposure import ExposureRules
from latchkey.service.leaks.public_keys import open_public_keys
from latchkey.service.lifespan import lifespan
from latchkey.service.limits.charger import Charger
from latchkey.service.limits.counters import DatabaseCounters
from latchkey.service.limits.crossings import QuotaReports
from latchkey.service.limits.enforcement import Limits
from latchkey.service.limits.redis_counters import RedisCounters
from latchkey.service.limits.split_charger import SplitCharger
from latchkey.service.metrics.collection import Metrics
from latchkey.service.middleware_stack import application_middleware, make_route, route_middleware
from latchkey.service.networks import NetworkError, Proxies
from latchkey.service.operation import Operation, RouteError, checked_scope
from latchkey.service.outbox.listeners import listeners
from latchkey.service.parts import Parts
from latchkey.service.problems import Problem
from latchkey.service.problems.registry import ProblemType, UnknownProblemError, known, register
from latchkey.service.redis.store import Store as RedisStore
from latchkey.service.redis.store import open_store
from latchkey.service.router import IndexedRouter
from latchkey.service.routes import REFERENCE_ROUTES, ROUTES, declared_scopes
from latchkey.service.settings import (
    Settings,
    SettingsError,
    read_environments,
    read_key_headers,
    read_public_origin,
)
from latchkey.service.tracing.opening import open_tracing
from latchkey.service.usage.counting import Usage
from latchkey.service.usage.rollup import Ages
from latchkey.service.usage.store import Store
from latchkey.service.webhooks.addresses import read_addresses
from latchkey.service.webhooks.deliverer import Deliverer
from latchkey.service.webhooks.delivery_queue import Queue
from latchkey.service.webhooks.ping import Pinger
from latchkey.service.webhooks.rules import Secrets, WebhookRules
from latchkey.service.webhooks.schedule import Schedule
from latchkey.service.webhooks.sender import sender_of

if TYPE_CHECKING:  # it imports an extra
    from latchkey.service.tracing.spans import Tracing


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
        SettingsError: a setting is wrong, the rules of the gate are wrong, or there is no key ring.
        RouteError: a route does not declare its callers, or is declared twice; or a scope has a wrong form.
        SchemaError: two schemas have the same name, a table belongs to two of them, or a schema has no revision.
    """
    settings = settings or Settings.from_env(os.environ)
    if is_only_declared():
        keyring = KeyRing.from_text(settings.keyring or KeyRing.generate_text())
    else:
        logs.configure(settings.log_format)
        keyring = open_keyring(settings)
    proxies = read_proxies(settings)
    key_headers = read_key_headers(settings.key_headers)
    environments = read_environments(settings.environments)
    gate_rules = read_gate_rules(settings)
    imported_formats = read_imported_formats(settings)
    github_keys = open_public_keys(settings)
    public_scheme, public_authority = read_public_origin(settings)
    channel = open_channel(settings)
    redis_store = open_store(settings)
    operations = (*ROUTES, *routes)
    served = (*operations, *REFERENCE_ROUTES) if settings.docs else operations
    schemas = tuple(schemas)
    register(problems)
    require_distinct(served)
    schema.require_distinct_schemas(schemas)
    if not is_only_declared():
        schema.require_revisions(schemas)
    declared = declared_scopes(operations) | frozenset(map(checked_scope, scopes))

    db = SQLAlchemy()
    last_used = LastUsed(db)
    key_cache = KeyCache(settings.key_cache_ttl_s)
    verifier = Verifier(
        keyring=keyring,
        keys=key_cache if settings.key_cache_ttl_s else lookup,
        prefix=settings.key_prefix,
        window_s=settings.clock_window_s,
        public_authority=public_authority,
        public_scheme=public_scheme,
        key_headers=key_headers,
        note_use=last_used.note,
        note_old_use=last_used.note_old,
        proxies=proxies,
        failures=Failures(settings.auth_failures_per_min),
        imported_formats=imported_formats,
    )
    nonces = open_nonces(settings, db, redis_store)
    replays = Replays(nonces, settings.clock_window_s, clock=lambda: verifier.moment().timestamp())
    quota_reports = QuotaReports(lambda: db.engine, listeners)
    charger = Charger(DatabaseCounters(lambda: db.reader), quota_reports.write)
    of_calls: Charger | SplitCharger = charger
    if redis_store is not None and settings.limits == "redis":
        of_calls = SplitCharger(charger, Charger(RedisCounters(redis_store), quota_reports.write))
    idempotency = Idempotency(lambda: db.reader, Allowance(charger, settings.stored_answers_per_key))
    limits = Limits(of_calls, settings.limits_on_outage, exempt=idempotency.has_answer)
    revocations = Revocations(key_cache, channel)
    parts = Parts(
        db=db,
        keyring=keyring,
        key_rules=KeyRules(
            Issuer(settings.key_prefix, keyring, environments, imported_formats),
            declared,
            settings.keys_per_owner,
        ),
        verifier=verifier,
        replays=replays,
        idempotency=idempotency,
        limits=limits,
        gate=Gate(
            verifier=verifier,
            limits=limits,
            replays=replays,
            rules=RulesInForce(gate_rules, lambda: db.reader),
            environments=environments,
        ),
        last_used=last_used,
        usage=Usage(Store(lambda: db.engine, lambda: db.reader), flush_s=settings.usage_flush_s),
        metrics=Metrics(),
        revocations=revocations,
        redis_store=redis_store,
        bounds=Bounds.of(settings),
        server_trust=ServerTrust(),
        schemas=schemas,
        sealer=Sealer(db, keyring, settings.audit_head_path),
        ended_keys_kept_days=settings.ended_keys_kept_days,
        usage_ages=Ages.of(settings),
        has_reference=settings.docs,
        exposure_rules=ExposureRules(verifier.formats, settings.leak_grace_s),
        github_keys=github_keys,
        tracing=None if is_only_declared() else open_tracing(settings),
        **webhook_parts(settings, db, keyring),
        openapi=msgspec.json.encode(
            openapi.document(operations, key_headers=key_headers, root_path=settings.root_path)
        ),
    )
    app = Starlette(
        exception_handlers={Problem: answer_problem, HTTPException: answer_http_exception},
    )
    app.state.latchkey = parts
    app.router = IndexedRouter(
        [make_route(operation, route_middleware(operation, parts)) for operation in served],
        lifespan=lifespan,
    )
    db.init_app(app, settings)
    watch_statements((db.engine, db.reader, db.replica), *watches(settings, parts.tracing))
    if settings.key_cache_ttl_s or channel is not None:
        db.watch(revocations.announce)
    for one in reversed(
        application_middleware(parts, settings)
    ):  # the middleware that is added last is the outermost
        app.add_middleware(one.cls, *one.args, **one.kwargs)
    declare(Declaration(app=app, settings=settings, operations=operations, schemas=schemas, scopes=declared))
    return app


def open_nonces(settings: Settings, db: SQLAlchemy, redis_store: RedisStore | None) -> Nonces:
    """Return the store of nonces that the settings name."""
    if redis_store is not None and settings.nonces == "redis":
        return RedisNonces(redis_store, early_s=settings.clock_window_s + SKEW_S)
    return DatabaseNonces(lambda: db.reader)


def watches(settings: Settings, tracing: "Tracing | None") -> list[Watch]:
    """Return what surrounds each statement; in production, nothing unless tracing is on."""
    found: list[Watch] = [time_statement] if settings.server_timing else []
    return found if tracing is None else [*found, tracing.watch]


def webhook_parts(settings: Settings, db: SQLAlchemy, keyring: KeyRing) -> dict[str, Any]:
    """Return the parts of webhooks, by name."""
    addresses, secrets = read_addresses(settings), Secrets(keyring)
    sender = sender_of(settings, addresses)
    queue = Queue(lambda: db.reader, Schedule(settings.webhook_retry_s, settings.webhook_give_up_s))
    return {
        "webhook_rules": WebhookRules(secrets, addresses),
        "pinger": Pinger(lambda: db.reader, secrets, sender),
        "deliverer": Deliverer(lambda: db.engine, queue, secrets=secrets, sender=sender, listeners=listeners),
    }


def read_proxies(settings: Settings) -> Proxies:
    """Return the proxies that may set the client address; without any, the client is the peer."""
    if settings.trusted_proxies is None:
        return Proxies()
    try:
        return Proxies.from_text(settings.trusted_proxies)
    except NetworkError as error:
        raise SettingsError(f"LATCHKEY_TRUSTED_PROXIES: {error}.") from None


def read_gate_rules(settings: Settings) -> Rules:
    """Return the gate's rules of the file; without a file there are only those that calls store."""
    if settings.gate_rules is None:
        return Rules()
    try:
        return read_rules(settings.gate_rules)
    except GateRulesError as error:
        raise SettingsError(f"LATCHKEY_GATE_RULES: {error}.") from None


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
