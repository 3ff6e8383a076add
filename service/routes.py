"""All routes of Latchkey: each URL with its permitted callers and its endpoint."""

from latchkey.service import shapes
from latchkey.service.audit.shapes import AuditPage
from latchkey.service.endpoints import (
    audit,
    gate,
    gate_rules,
    key_import,
    keys,
    leaks,
    me,
    metrics,
    reference,
    roles,
    scopes,
    signatures,
    usage,
    users,
    verification,
    webhooks,
)
from latchkey.service.endpoints import service as service_endpoints
from latchkey.service.explanation.shapes import SignatureReport
from latchkey.service.gate.shapes import GateRulesVersion
from latchkey.service.keys.import_shapes import ImportResults
from latchkey.service.leaks.shapes import Leaks
from latchkey.service.operation import Operation, route
from latchkey.service.pages import html
from latchkey.service.usage.shapes import UsageReport
from latchkey.service.webhooks import shapes as webhook_shapes

SERVICE = "service"
PROBLEM = {"code": "email_taken"}
USER = {"id": "1"}
KEY = {"access_key": "lka_0000000000000000000000"}
NEW_USER = {"email": "ann@example.com", "name": "Ann"}
USER_CHANGE = {"name": "Ann B."}
SCOPE = {"name": "orders:read"}
NEW_SCOPE = {"name": "orders:write", "description": "Create and change orders."}
ROLE = {"name": "reader"}
NEW_ROLE = {"name": "auditor", "scopes": ["users:read", "keys:read"], "description": "Read everything."}
ROLE_CHANGE = {"scopes": ["users:read"]}
NEW_MY_KEY = {"name": "nightly import", "mode": "signed", "scopes": ["users:read"]}
NEW_KEY = {"user_id": 1, **NEW_MY_KEY}
KEY_CHANGE = {"name": "hourly import"}
ROTATION = {"grace_s": 7 * 24 * 60 * 60, "version": 1}  # 7 days
CREDIT_CHANGE = {"delta": 500}
GATE_RULE = {"name": "orders"}
NEW_GATE_RULE = {
    "name": "orders",
    "hosts": ["api.example.com"],
    "methods": ["GET"],
    "paths": ["/orders", "/orders/*"],
    "scope": "users:read",
    "cost": 2,
}

WEBHOOK = {"id": "1"}
NEW_WEBHOOK = {"url": "https://example.com/latchkey-events", "events": ["key.created", "key.revoked"]}
WEBHOOK_CHANGE = {"enabled": False}
WEBHOOK_ROTATION = {"grace_s": 24 * 60 * 60}  # a day

VERIFY = {
    "credential": "lks_00000000000000000000000000000000000000000003GTfko",
    "scopes": ["users:read"],
    "cost": 2,
}

IMPORTED_KEY = {
    "user_id": 1,
    "name": "nightly import",
    "mode": "signed",
    "secret": "d51b7c1a5a1bdcb4ad2d84b3a5b4d5c4",
    "scopes": ["users:read"],
}
LEAK_REPORT = {"data": [{"secret": VERIFY["credential"], "url": "https://example.com/backup.env"}]}
GITHUB_REPORT = [
    {
        "token": VERIFY["credential"],
        "type": "latchkey_secret",
        "url": "https://github.com/example/example/blob/main/.env",
        "source": "content",
    }
]

SIGNED_REQUEST = {
    "method": "GET",
    "url": "https://latchkey.example.com/v1/me?key=lka_0000000000000000000000&timestamp=1700000000",
    "headers": {"secret": "3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
}

GATE_PROBLEMS = (
    "gate_request_invalid", "ambiguous_request", "gate_caller_refused", "no_gate_rule",
    "two_credentials", "unauthenticated", "digest_mismatch", "replayed", "key_revoked", "key_expired", "owner_inactive",
    "network_not_allowed", "scope_missing", "coverage_required", "too_many_failures", "rate_limited", "quota_exceeded", "credits_used_up",
    "cost_above_limit",
)  # fmt: skip

ROUTES: tuple[Operation, ...] = (
    route("GET", "/", service_endpoints.read_home, public=True, tag=SERVICE, page=html.home),
    route("GET", "/healthz", service_endpoints.read_health, public=True, tag=SERVICE),
    route("GET", "/livez", service_endpoints.read_liveness, public=True, tag=SERVICE),
    route("GET", "/readyz", service_endpoints.read_readiness, public=True, tag=SERVICE, problems=("unavailable",)),
    route("GET", "/openapi.json", service_endpoints.read_openapi, public=True, tag=SERVICE),
    route("GET", "/metrics", metrics.read_metrics, scope="metrics:read", cost=0, tag=SERVICE),
    route("GET", "/problems/{code}", service_endpoints.read_problem, public=True, tag=SERVICE, page=html.explanation,
          problems=("not_found",), path_example=PROBLEM),

    route("GET", "/v1/me", me.read_me, any_key=True),
    route("POST", "/v1/me/keys", me.create_my_key, scope="me.keys:write",
          status=201, answers=shapes.KeyWithSecret, problems=("scope_not_held", "other_environment", "user_not_active", "too_many_keys"),
          example=NEW_MY_KEY, idempotent=True),
    route("GET", "/v1/me/keys", me.list_my_keys, scope="me.keys:read",
          answers=shapes.KeyPage, problems=("invalid_cursor",)),
    route("GET", "/v1/me/keys/{access_key}", me.read_my_key, scope="me.keys:read",
          answers=shapes.Key, problems=("not_found",), path_example=KEY),
    route("PATCH", "/v1/me/keys/{access_key}", me.change_my_key, scope="me.keys:write",
          answers=shapes.Key, problems=("not_found", "scope_not_held", "other_environment", "key_wider", "key_not_active"),
          example=KEY_CHANGE, path_example=KEY, idempotent=True),
    route("POST", "/v1/me/keys/{access_key}/rotate", me.rotate_my_key, scope="me.keys:write",
          answers=shapes.RotatedKey,
          problems=("not_found", "scope_not_held", "other_environment", "key_wider", "key_not_active", "version_changed"),
          example=ROTATION, path_example=KEY, idempotent=True),
    route("DELETE", "/v1/me/keys/{access_key}", me.revoke_my_key, scope="me.keys:write",
          status=204, problems=("not_found",), path_example=KEY, idempotent=True),

    route("GET", "/v1/me/usage", usage.read_my_usage, scope="me.usage:read",
          answers=UsageReport, also=("text/csv",), problems=("not_found",)),

    route("POST", "/v1/me/signatures/explain", signatures.explain_my_signature, scope="me.keys:read",
          answers=SignatureReport, example=SIGNED_REQUEST, idempotent=True),

    route("POST", "/v1/users", users.create_user, scope="users:write",
          status=201, answers=shapes.User, problems=("email_taken", "external_id_taken"), example=NEW_USER, idempotent=True),
    route("GET", "/v1/users", users.list_users, scope="users:read",
          answers=shapes.UserPage, problems=("invalid_cursor",)),
    route("GET", "/v1/users/{id}", users.read_user, scope="users:read",
          answers=shapes.User, problems=("not_found",), path_example=USER),
    route("PATCH", "/v1/users/{id}", users.change_user, scope="users:write",
          answers=shapes.User, problems=("not_found", "email_taken", "external_id_taken", "user_deleted", "user_owns_caller"),
          example=USER_CHANGE, path_example=USER, idempotent=True),
    route("DELETE", "/v1/users/{id}", users.delete_user, scope="users:write",
          status=204, problems=("not_found", "user_owns_caller"), path_example=USER, idempotent=True),

    route("POST", "/v1/keys", keys.create_key, scope="keys:write",
          status=201, answers=shapes.KeyWithSecret, problems=("scope_not_held", "other_environment", "user_not_active", "too_many_keys", "external_id_taken"),
          example=NEW_KEY, idempotent=True),
    route("POST", "/v1/keys/import", key_import.import_keys, scope="keys:import",
          answers=ImportResults, problems=("scope_not_held", "other_environment"), example={"data": [IMPORTED_KEY]}),
    route("GET", "/v1/keys", keys.list_keys, scope="keys:read",
          answers=shapes.KeyPage, problems=("invalid_cursor",)),
    route("GET", "/v1/keys/{access_key}", keys.read_key, scope="keys:read",
          answers=shapes.Key, problems=("not_found",), path_example=KEY),
    route("PATCH", "/v1/keys/{access_key}", keys.change_key, scope="keys:write",
          answers=shapes.Key, problems=("not_found", "scope_not_held", "other_environment", "key_not_active", "external_id_taken"),
          example=KEY_CHANGE, path_example=KEY, idempotent=True),
    route("POST", "/v1/keys/{access_key}/credits", keys.change_credits, scope="keys:write",
          answers=shapes.Key,
          problems=("not_found", "scope_not_held", "other_environment", "key_not_active", "key_without_credits", "too_few_credits"),
          example=CREDIT_CHANGE, path_example=KEY, idempotent=True),
    route("POST", "/v1/keys/{access_key}/rotate", keys.rotate_key, scope="keys:write",
          answers=shapes.RotatedKey,
          problems=("not_found", "scope_not_held", "other_environment", "key_not_active", "version_changed"),
          example=ROTATION, path_example=KEY, idempotent=True),
    route("GET", "/v1/keys/{access_key}/usage", usage.read_key_usage, scope="keys:read",
          answers=UsageReport, also=("text/csv",), problems=("not_found",), path_example=KEY),
    route("DELETE", "/v1/keys/{access_key}", keys.revoke_key, scope="keys:write",
          status=204, problems=("not_found",), path_example=KEY, idempotent=True),

    route("POST", "/v1/keys/verify", verification.verify_key, scope="keys:verify",
          answers=shapes.Verified, example=VERIFY),
    route("POST", "/v1/keys/verify-batch", verification.verify_keys, scope="keys:verify",
          answers=shapes.VerifiedBatch, example={"data": [VERIFY]}),
    route("POST", "/v1/me/keys/verify", verification.verify_my_key, scope="me.keys:verify",
          answers=shapes.Verified, example=VERIFY),

    route("GET", "/v1/gate", gate.ask_gate, public=True, any_request=True, retry=False, status=204, problems=GATE_PROBLEMS),
    route("GET", "/v1/gate/nginx", gate.ask_gate_for_nginx, public=True, any_request=True, retry=False, status=204,
          problems=GATE_PROBLEMS),

    route("GET", "/v1/gate/envoy", gate.ask_gate_for_envoy, public=True, any_request=True, retry=False, status=200,
          problems=GATE_PROBLEMS),
    route("GET", "/v1/gate/rules", gate_rules.read_gate_rules, scope="gate.rules:read"),
    route("PUT", "/v1/gate/rules", gate_rules.replace_gate_rules, scope="gate.rules:write",
          problems=("version_changed",), example={"version": 1, "data": [NEW_GATE_RULE]}, idempotent=True),
    route("POST", "/v1/gate/rules", gate_rules.create_gate_rule, scope="gate.rules:write",
          status=201, answers=GateRulesVersion, problems=("version_changed", "gate_rule_taken"),
          example={"rule": NEW_GATE_RULE}, idempotent=True),
    route("GET", "/v1/gate/rules/{name}", gate_rules.read_gate_rule, scope="gate.rules:read",
          problems=("not_found",), path_example=GATE_RULE),
    route("PUT", "/v1/gate/rules/{name}", gate_rules.replace_gate_rule, scope="gate.rules:write",
          problems=("not_found", "version_changed", "gate_rule_taken"), example={"version": 1, "rule": NEW_GATE_RULE},
          path_example=GATE_RULE, idempotent=True),
    route("DELETE", "/v1/gate/rules/{name}", gate_rules.delete_gate_rule, scope="gate.rules:write",
          problems=("not_found", "version_changed"), path_example=GATE_RULE, idempotent=True),

    route("POST", "/v1/scopes", scopes.create_scope, scope="scopes:write",
          status=201, answers=shapes.Scope, problems=("scope_taken",), example=NEW_SCOPE, idempotent=True),
    route("GET", "/v1/scopes", scopes.list_scopes, scope="scopes:read",
          answers=shapes.ScopePage, problems=("invalid_cursor",)),
    route("DELETE", "/v1/scopes/{name}", scopes.delete_scope, scope="scopes:write",
          status=204, problems=("not_found", "scope_in_use"), path_example=SCOPE, idempotent=True),

    route("POST", "/v1/roles", roles.create_role, scope="roles:write",
          status=201, answers=shapes.Role, problems=("scope_not_held", "role_taken"), example=NEW_ROLE, idempotent=True),
    route("GET", "/v1/roles", roles.list_roles, scope="roles:read",
          answers=shapes.RolePage, problems=("invalid_cursor",)),
    route("GET", "/v1/roles/{name}", roles.read_role, scope="roles:read",
          answers=shapes.Role, problems=("not_found",), path_example=ROLE),
    route("PATCH", "/v1/roles/{name}", roles.change_role, scope="roles:write",
          answers=shapes.Role, problems=("not_found", "scope_not_held"), example=ROLE_CHANGE, path_example=ROLE,
          idempotent=True),
    route("DELETE", "/v1/roles/{name}", roles.delete_role, scope="roles:write",
          status=204, problems=("not_found", "scope_not_held", "role_in_use"), path_example=ROLE, idempotent=True),

    route("POST", "/v1/webhooks", webhooks.create_webhook, scope="webhooks:write",
          status=201, answers=webhook_shapes.WebhookWithSecret, problems=("too_many_webhooks",),
          example=NEW_WEBHOOK, idempotent=True),
    route("GET", "/v1/webhooks", webhooks.list_webhooks, scope="webhooks:read",
          answers=webhook_shapes.WebhookPage, problems=("invalid_cursor",)),
    route("GET", "/v1/webhooks/{id}", webhooks.read_webhook, scope="webhooks:read",
          answers=webhook_shapes.Webhook, problems=("not_found",), path_example=WEBHOOK),
    route("PATCH", "/v1/webhooks/{id}", webhooks.change_webhook, scope="webhooks:write",
          answers=webhook_shapes.Webhook, problems=("not_found",), example=WEBHOOK_CHANGE, path_example=WEBHOOK,
          idempotent=True),
    route("POST", "/v1/webhooks/{id}/rotate", webhooks.rotate_webhook, scope="webhooks:write",
          answers=webhook_shapes.RotatedWebhook, problems=("not_found",), example=WEBHOOK_ROTATION,
          path_example=WEBHOOK, idempotent=True),
    route("DELETE", "/v1/webhooks/{id}", webhooks.delete_webhook, scope="webhooks:write",
          status=204, problems=("not_found",), path_example=WEBHOOK, idempotent=True),
    route("GET", "/v1/webhooks/{id}/deliveries", webhooks.list_deliveries, scope="webhooks:read",
          answers=webhook_shapes.DeliveryPage, problems=("not_found", "invalid_cursor"), path_example=WEBHOOK),
    route("POST", "/v1/webhooks/{id}/redeliver", webhooks.redeliver_events, scope="webhooks:write",
          answers=webhook_shapes.Redelivered, problems=("not_found",), example={}, path_example=WEBHOOK, idempotent=True),
    route("POST", "/v1/webhooks/{id}/ping", webhooks.ping_webhook, scope="webhooks:write", retry=False,
          answers=webhook_shapes.Pinged, problems=("not_found",), path_example=WEBHOOK),

    route("POST", "/v1/leaks", leaks.report_leaks, scope="leaks:write",
          answers=Leaks, example=LEAK_REPORT, idempotent=True),
    route("POST", "/v1/leaks/github", leaks.report_github_leaks, public=True,
          problems=("not_found", "unauthenticated", "too_many_failures"), example=GITHUB_REPORT),

    route("GET", "/v1/audit", audit.list_audit_events, scope="audit:read",
          answers=AuditPage, problems=("invalid_cursor",)),

    route("POST", "/v1/signatures/explain", signatures.explain_signature, scope="keys:read",
          answers=SignatureReport, example=SIGNED_REQUEST, idempotent=True),
)  # fmt: skip

REFERENCE_ROUTES: tuple[Operation, ...] = (
    route("GET", "/docs", reference.read_reference, public=True, tag=SERVICE),
    route("GET", "/docs/{name}", reference.read_reference_file, public=True, tag=SERVICE, problems=("not_found",)),
)  # fmt: skip
"""The pages of the reference, which OpenAPI does not describe: they are for people."""


def declared_scopes(operations: tuple[Operation, ...]) -> frozenset[str]:
    """Return the scopes that routes require; a key can have only these."""
    return frozenset(one.scope for one in operations if one.scope is not None)
