"""The models: tables, and the verbs that read and write them."""

from latchkey.models.api_key import ApiKey, KeySecret
from latchkey.models.audit_event import AuditEvent
from latchkey.models.audit_head import AuditHead
from latchkey.models.base import Base
from latchkey.models.gate_rule_set import GateRuleSet
from latchkey.models.idempotency_key import IdempotencyKey
from latchkey.models.keyring_canary import KeyringCanary
from latchkey.models.limit_counter import LimitCounter
from latchkey.models.nonce import Nonce
from latchkey.models.role import Role
from latchkey.models.scope import Scope
from latchkey.models.usage import UsageCount, UsageFlush, UsageSeries
from latchkey.models.user import User
from latchkey.models.watched import Watched
from latchkey.models.webhook import EventMark, Webhook, WebhookDelivery

__all__ = [
    "ApiKey",
    "AuditEvent",
    "AuditHead",
    "Base",
    "EventMark",
    "GateRuleSet",
    "IdempotencyKey",
    "KeySecret",
    "KeyringCanary",
    "LimitCounter",
    "Nonce",
    "Role",
    "Scope",
    "UsageCount",
    "UsageFlush",
    "UsageSeries",
    "User",
    "Watched",
    "Webhook",
    "WebhookDelivery",
]
