"""`GET /v1/me`: the calling user and key."""

import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from tests.api import HeldKey, assert_problem, call, hold_key, key_row, rfc3339, user_row


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_a_caller_reads_who_it_is_and_with_which_key(app: Starlette, mode: str) -> None:
    held = await hold_key(app, scopes=[], mode=mode)
    user, key = await user_row(held.user_id), await key_row(held.access_key)

    answer = await call(app, "GET", "/v1/me", key=held)

    assert answer.status == 200
    assert answer.json == {
        "user": {
            "id": user.id,
            "email": "operator@example.com",
            "name": "Operator",
            "status": "active",
            "limits": [],
            "quota": None,
            "external_id": None,
            "meta": {},
            "created_at": rfc3339(user.created_at),
            "updated_at": rfc3339(user.updated_at),
        },
        "key": {
            "access_key": held.access_key,
            "user_id": user.id,
            "name": f"{mode} key",
            "mode": mode,
            "scopes": [],
            "allowed_networks": [],
            "limits": [],
            "quota": None,
            "credits": None,
            "environment": "live",
            "roles": [],
            "role_scopes": [],
            "external_id": None,
            "meta": {},
            "status": "active",
            "secret_version": 1,
            "old_secret_calls": 0,
            "old_secret_last_used_at": None,
            "expires_at": None,
            "last_used_at": None,
            "created_at": rfc3339(key.created_at),
            "updated_at": rfc3339(key.updated_at),
        },
    }


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_head_goes_with_get_and_signs_as_head(app: Starlette, mode: str) -> None:
    held = await hold_key(app, scopes=[], mode=mode)

    answer = await call(app, "HEAD", "/v1/me", key=held)

    assert answer.status == 200


async def test_a_signature_of_get_is_none_of_head(app: Starlette, signer: HeldKey) -> None:
    async def as_head(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "method": "HEAD"}, receive, send)

    answer = await call(app, "GET", "/v1/me", key=signer, wrap=as_head)

    assert_problem(answer, 401, "unauthenticated")


async def test_without_a_key_nobody_is_told_anything(app: Starlette) -> None:
    assert_problem(await call(app, "GET", "/v1/me"), 401, "unauthenticated")
