"""A quota is reported at 80 and at 100 percent, once in a period."""

from typing import Any

import msgspec
from starlette.applications import Starlette

from latchkey.models.limit import Quota
from tests.api import HeldKey, call, hold_key
from tests.service.limits.rules import limit_owner
from tests.service.webhooks.rows import deliveries, hold_webhook


async def reported(app: Starlette) -> list[Any]:
    return [msgspec.json.decode(bytes(row.payload))["data"] for row in await deliveries(app, 1)]


async def test_a_quota_is_reported_once_for_each_part(app: Starlette) -> None:
    await hold_webhook(app, 1, events=["quota.reached"])
    key = await hold_key(app, scopes=[], quota=Quota(limit=10, per="month"))

    counts = []
    for _ in range(12):
        await call(app, "GET", "/v1/me", key=key)
        counts.append(len(await reported(app)))

    assert counts == [0] * 7 + [1] * 2 + [2] * 3
    first, second = await reported(app)
    assert (first["percent"], first["used"], first["limit"], first["per"]) == (80, 8, 10, "month")
    assert (second["percent"], second["used"]) == (100, 10)
    assert (first["access_key"], first["user_id"]) == (key.access_key, key.user_id)


async def test_one_charge_may_reach_both_parts(app: Starlette, operator: HeldKey) -> None:
    await hold_webhook(app, 1, events=["quota.reached"])
    key = await hold_key(app, email="p@example.com", scopes=[], quota=Quota(limit=10, per="day"))
    body = {"credential": key.secret, "cost": 10}

    await call(app, "POST", "/v1/keys/verify", key=operator, body=body)

    assert [one["percent"] for one in await reported(app)] == [80, 100]


async def test_the_quota_of_an_owner_names_the_owner(app: Starlette) -> None:
    await hold_webhook(app, 1)
    key = await hold_key(app, scopes=[])
    await limit_owner(app, key.user_id, quota=Quota(limit=1, per="day"))
    before = len(await reported(app))

    await call(app, "GET", "/v1/me", key=key)

    found = [one for one in (await reported(app))[before:] if "percent" in one]
    assert [(one["access_key"], one["user_id"], one["percent"]) for one in found] == [
        (None, key.user_id, 80),
        (None, key.user_id, 100),
    ]
