"""The number of keys of an owner is limited."""

import asyncio
from collections import Counter

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key, stored

LIMIT = 4
KEY = {"name": "n", "mode": "bearer", "scopes": []}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, keys_per_owner=LIMIT, pool_timeout_s=10.0)


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/me/keys"])
async def test_beyond_the_bound_no_key_is_created_and_revoked_ones_count(
    app: Starlette, operator: HeldKey, path: str
) -> None:
    caller = await hold_key(app, email="partner@example.com")
    body = KEY if path == "/v1/me/keys" else {**KEY, "user_id": caller.user_id}
    made = [await call(app, "POST", path, key=caller, body=body) for _ in range(LIMIT - 1)]
    await call(app, "DELETE", f"/v1/keys/{made[0].json['access_key']}", key=operator)
    before = await stored(app.state.db.reader)

    answer = await call(app, "POST", path, key=caller, body=body)
    elsewhere = await call(app, "POST", "/v1/me/keys", key=operator, body=KEY)

    assert [one.status for one in made] == [201] * (LIMIT - 1)
    assert_problem(answer, 409, "too_many_keys")
    assert len((await stored(app.state.db.reader))["api_keys"]) == len(before["api_keys"]) + 1
    assert elsewhere.status == 201


async def test_calls_at_the_same_moment_do_not_pass_the_bound_together(app: Starlette) -> None:
    caller = await hold_key(app, email="partner@example.com")

    answers = await asyncio.gather(
        *(
            asyncio.create_task(call(app, "POST", "/v1/me/keys", key=caller, body=KEY))
            for _ in range(LIMIT * 2)
        )
    )

    assert Counter(one.status for one in answers) == {201: LIMIT - 1, 409: LIMIT + 1}
