"""The parts of an application: one object, in `app.state.latchkey`, that `create_app` fills and `parts_of` returns."""

from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette

from latchkey.service.audit.sealer import Sealer
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.replay import Replays
from latchkey.service.authentication.verifier import Verifier
from latchkey.service.connections.adoption import ServerTrust
from latchkey.service.connections.bounds import Bounds
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.schema import Schema
from latchkey.service.gate.decision import Gate
from latchkey.service.idempotency.claims import Idempotency
from latchkey.service.key_cache.revocations import Revocations
from latchkey.service.keys.last_used import LastUsed
from latchkey.service.keys.rules import KeyRules
from latchkey.service.leaks.exposure import ExposureRules
from latchkey.service.leaks.public_keys import PublicKeys
from latchkey.service.limits.enforcement import Limits
from latchkey.service.metrics.collection import Metrics
from latchkey.service.redis.store import Store
from latchkey.service.usage.counting import Usage
from latchkey.service.usage.rollup import Ages
from latchkey.service.webhooks.deliverer import Deliverer
from latchkey.service.webhooks.ping import Pinger
from latchkey.service.webhooks.rules import WebhookRules

if TYPE_CHECKING:  # it imports an extra
    from latchkey.service.tracing.spans import Tracing


class Parts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What `create_app` built, for its lifespan, its endpoints and a team's code."""

    db: SQLAlchemy
    keyring: KeyRing
    key_rules: KeyRules
    verifier: Verifier
    replays: Replays
    idempotency: Idempotency
    limits: Limits
    gate: Gate
    last_used: LastUsed
    usage: Usage
    metrics: Metrics
    revocations: Revocations
    bounds: Bounds
    server_trust: ServerTrust
    redis_store: Store | None
    schemas: tuple[Schema, ...]
    sealer: Sealer
    ended_keys_kept_days: int
    usage_ages: Ages
    has_reference: bool
    webhook_rules: WebhookRules
    pinger: Pinger
    deliverer: Deliverer
    tracing: "Tracing | None"
    exposure_rules: ExposureRules
    github_keys: PublicKeys | None
    openapi: bytes


def parts_of(app: Starlette) -> Parts:
    """Return the parts of an application.

    Raises:
        RuntimeError: `create_app` did not build it.
    """
    parts = find_parts(app)
    if parts is None:
        raise RuntimeError("this application was not built by `latchkey.create_app`.")
    return parts


def find_parts(app: Starlette | None) -> Parts | None:
    """Return the parts of an application; None for any other, and for None."""
    parts: Parts | None = getattr(getattr(app, "state", None), "latchkey", None)
    return parts
