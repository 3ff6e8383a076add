"""A call that changes keys is decided by the state of its own key at COMMIT, not at its authentication."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Scope

from latchkey.models import ApiKey, User
from tests.api import HeldKey, assert_problem, call, hold_key, rotate_held, stored
from tests.service.limits.rules import limit

PARTNER = "partner@example.com"
KEY = {"name": "n", "mode": "bearer", "scopes": []}


def key_gets(**changes: Any) -> Any:
    async def change(app: Starlette, key: HeldKey) -> None:
        async with app.state.db.scoped_session() as session:
            await (await ApiKey.filter_by(id=key.id).one()).update(**changes)
            await session.commit()

    return change


def owner_gets(**changes: Any) -> Any:
    async def change(app: Starlette, key: HeldKey) -> None:
        async with app.state.db.scoped_session() as session:
            await (await User.filter_by(id=key.user_id).one()).update(**changes)
            await session.commit()

    return change


async def rotate(app: Starlette, key: HeldKey) -> None:
    await rotate_held(app, key, grace_s=0)


CHANGES = {
    "revoked": (key_gets(status="revoked"), 401, "key_revoked"),
    "expired": (key_gets(expires_at=datetime.now(UTC) - timedelta(seconds=1)), 401, "key_expired"),
    "scopes": (key_gets(scopes=()), 403, "scope_missing"),
    "networks": (key_gets(allowed_networks=("192.0.2.0/24",)), 403, "network_not_allowed"),
    "limits": (key_gets(limits=(limit(),)), 503, "unavailable"),
    "owner's limits": (owner_gets(limits=(limit(),)), 503, "unavailable"),
    "owner blocked": (owner_gets(status="blocked"), 401, "owner_inactive"),
    "owner deleted": (owner_gets(status="deleted"), 401, "owner_inactive"),
    "secret": (rotate, 401, "unauthenticated"),
}

CALLS = {
    "create": ("POST", "/v1/keys", {**KEY, "user_id": 0}),
    "create mine": ("POST", "/v1/me/keys", KEY),
    "change": ("PATCH", "/v1/keys/{access_key}", {"name": "x"}),
    "change mine": ("PATCH", "/v1/me/keys/{access_key}", {"name": "x"}),
    "rotate": ("POST", "/v1/keys/{access_key}/rotate", {"grace_s": 0}),
    "rotate mine": ("POST", "/v1/me/keys/{access_key}/rotate", {"grace_s": 0}),
    "revoke": ("DELETE", "/v1/keys/{access_key}", None),
    "revoke mine": ("DELETE", "/v1/me/keys/{access_key}", None),
    "change a user": ("PATCH", "/v1/users/{id}", {"name": "x"}),
    "delete a user": ("DELETE", "/v1/users/{id}", None),
}


@pytest.mark.parametrize("once", [False, True], ids=["", "once"])
@pytest.mark.parametrize(("change", "status", "code"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(("method", "path", "body"), CALLS.values(), ids=CALLS)
async def test_changes_after_the_authentication_still_decide(
    app: Starlette,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    change: Callable[..., Any],
    status: int,
    code: str,
    once: bool,
) -> None:
    caller = await hold_key(app, email=PARTNER)
    other = await hold_key(app, email=PARTNER, scopes=[])
    guest = await hold_key(app, email="guest@example.com", scopes=[])
    owner = guest if "/users/" in path else other
    authenticate = app.state.latchkey.verifier.verify
    before: list[Any] = []

    async def verify(scope: Scope) -> Any:
        principal = await authenticate(scope)
        await change(app, caller)
        before.append(await stored(app.state.db.reader))
        return principal

    monkeypatch.setattr(app.state.latchkey.verifier, "verify", verify)
    body = {**body, "user_id": other.user_id} if body and "user_id" in body else body
    answer = await call(
        app,
        method,
        path.format(access_key=other.access_key, id=owner.user_id),
        key=caller,
        body=body,
        headers=[("idempotency-key", "5")] if once else (),
    )

    assert_problem(answer, status, code)
    after = await stored(app.state.db.reader)
    for table in ("users", "api_keys", "key_secrets", "idempotency_keys"):
        assert after[table] == before[0][table], table
