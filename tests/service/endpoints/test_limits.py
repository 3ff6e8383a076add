"""Limits and quotas of keys and owners: which callers may set them, their values, and that no key escapes its own."""

from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.models.limit import Quota
from tests.api import HeldKey, assert_problem, call, hold_key, key_row, user_row
from tests.requests import Answer
from tests.service.limits.rules import limit, per_day

PARTNER = "partner@example.com"
MINE = ["me.keys:read", "me.keys:write", "users:read"]
BURST = {"name": "burst", "limit": 100, "window_s": 60}
HOURLY = {"name": "hourly", "limit": 1000, "window_s": 3600}
DAILY = {"limit": 10000, "per": "day"}
PER_MONTH = Quota(limit=99, per="month")
KEY = {"name": "n", "mode": "bearer", "scopes": []}


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    return await hold_key(app, email=PARTNER, scopes=["users:read"])


async def patch(app: Starlette, operator: HeldKey, partner: HeldKey, kind: str, body: Any) -> Answer:
    path = f"/v1/keys/{partner.access_key}" if kind == "keys" else f"/v1/users/{partner.user_id}"
    return await call(app, "PATCH", path, key=operator, body=body)


async def test_a_key_is_created_with_limits_and_a_quota(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    body = {**KEY, "user_id": partner.user_id, "limits": [BURST, HOURLY], "quota": DAILY}

    answer = await call(app, "POST", "/v1/keys", key=operator, body=body)

    row = await key_row(answer.json["access_key"])
    assert answer.status == 201
    assert (answer.json["limits"], answer.json["quota"]) == ([BURST, HOURLY], DAILY)
    assert row.limits == (limit("burst", 100), limit("hourly", 1000, 3600))
    assert row.quota == per_day(10000)


@pytest.mark.parametrize("kind", ["keys", "users"])
async def test_limits_are_changed_one_by_one_and_taken_away(
    app: Starlette, operator: HeldKey, partner: HeldKey, kind: str
) -> None:
    bodies: list[dict[str, Any]] = [
        {"limits": [BURST]},
        {"quota": DAILY},
        {"name": "x"},
        {"limits": []},
        {"quota": None},
    ]
    changed = [await patch(app, operator, partner, kind, body) for body in bodies]

    assert [(one.json["limits"], one.json["quota"]) for one in changed] == [
        ([BURST], None),
        ([BURST], DAILY),
        ([BURST], DAILY),
        ([], DAILY),
        ([], None),
    ]
    row = await (key_row(partner.access_key) if kind == "keys" else user_row(partner.user_id))
    assert (row.limits, row.quota) == ((), None)


WRONG = [
    pytest.param({"limits": [BURST, BURST]}, "/limits/1/name", id="a name twice"),
    pytest.param({"limits": [{**BURST, "name": "quota"}]}, "/limits/0/name", id="the quota's name"),
    pytest.param({"limits": [{**BURST, "name": "Burst"}]}, "/limits/0/name", id="a capital"),
    pytest.param({"limits": [{**BURST, "name": "owner.burst"}]}, "/limits/0/name", id="a dot"),
    pytest.param({"limits": [{**BURST, "name": "b" * 33}]}, "/limits/0/name", id="a long name"),
    pytest.param({"limits": [{**BURST, "name": "b\n"}]}, "/limits/0/name", id="a newline"),
    pytest.param({"limits": [{**BURST, "limit": 0}]}, "/limits/0/limit", id="a limit of 0"),
    pytest.param({"limits": [{**BURST, "limit": 10**9 + 1}]}, "/limits/0/limit", id="a limit above 10^9"),
    pytest.param({"limits": [{**BURST, "window_s": 0}]}, "/limits/0/window_s", id="a window of 0"),
    pytest.param(
        {"limits": [{**BURST, "window_s": 31 * 86400 + 1}]}, "/limits/0/window_s", id="over 31 days"
    ),
    pytest.param({"limits": [{**BURST, "window_s": 0.5}]}, "/limits/0/window_s", id="half a second"),
    pytest.param({"limits": [{**BURST, "per": "day"}]}, "/limits/0/per", id="a field too many"),
    pytest.param({"limits": [{"name": "b", "limit": 1}]}, "/limits/0/window_s", id="a field too few"),
    pytest.param({"limits": [{**BURST, "name": n} for n in "abcdef"]}, "/limits", id="six"),
    pytest.param({"limits": None}, "/limits", id="no list"),
    pytest.param({"quota": {"limit": 0, "per": "day"}}, "/quota/limit", id="a quota of 0"),
    pytest.param({"quota": {"limit": 1, "per": "week"}}, "/quota/per", id="a week"),
    pytest.param({"quota": {"limit": 1}}, "/quota/per", id="no period"),
]


@pytest.mark.parametrize("body, pointer", WRONG)
async def test_an_invalid_limit_is_pointed_at(
    app: Starlette, operator: HeldKey, partner: HeldKey, body: dict[str, Any], pointer: str
) -> None:
    create = {**KEY, "user_id": partner.user_id, **body}
    answers = [
        await patch(app, operator, partner, "keys", body),
        await patch(app, operator, partner, "users", body),
        await call(app, "POST", "/v1/keys", key=operator, body=create),
    ]

    for answer in answers:
        assert_problem(answer, 422, "invalid_body")
        assert [fault["pointer"] for fault in answer.json["errors"]] == [pointer]


async def test_a_change_holds_from_the_next_call(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    assert "ratelimit" not in (await call(app, "GET", "/v1/me", key=partner)).headers
    await patch(app, operator, partner, "keys", {"limits": [{**BURST, "limit": 1}]})

    statuses = [(await call(app, "GET", "/v1/me", key=partner)).status for _ in range(2)]

    assert statuses == [200, 429]


# ---------------------------------------------------------------------- keys of one's own


@pytest.fixture
async def caller(app: Starlette) -> HeldKey:
    """A partner's key with limits."""
    return await hold_key(
        app,
        email=PARTNER,
        scopes=MINE,
        limits=[limit("burst", 100), limit("hour", 900, 3600)],
        quota=per_day(99),
    )


async def test_a_key_that_a_limited_one_makes_has_its_limits(app: Starlette, caller: HeldKey) -> None:
    answer = await call(app, "POST", "/v1/me/keys", key=caller, body=KEY)

    made = await key_row(answer.json["access_key"])
    assert answer.status == 201
    assert (made.limits, made.quota) == ((limit("burst", 100), limit("hour", 900, 3600)), per_day(99))


@pytest.mark.parametrize("field", [{"limits": []}, {"limits": [BURST]}, {"quota": None}, {"quota": DAILY}])
async def test_partners_set_no_limits(app: Starlette, caller: HeldKey, field: dict[str, Any]) -> None:
    path = f"/v1/me/keys/{caller.access_key}"
    answers = [
        await call(app, "POST", "/v1/me/keys", key=caller, body={**KEY, **field}),
        await call(app, "PATCH", path, key=caller, body=field),
    ]

    for answer in answers:
        assert_problem(answer, 422, "invalid_body")
        assert [fault["pointer"] for fault in answer.json["errors"]] == [f"/{next(iter(field))}"]


SISTERS = [
    pytest.param([limit("burst", 100), limit("hour", 900, 3600)], per_day(99), True, id="the same"),
    pytest.param([limit("x", 100), limit("y", 900, 3600)], per_day(99), True, id="other names"),
    pytest.param([limit("x", 99), limit("y", 1, 86400)], per_day(98), True, id="narrower"),
    pytest.param([limit("x", 100, 3600)], per_day(99), True, id="one that keeps both"),
    pytest.param([limit("x", 100), limit("y", 900, 3600)], PER_MONTH, True, id="a month for a day"),
    pytest.param([], None, False, id="no limits at all"),
    pytest.param([limit("burst", 100)], per_day(99), False, id="a limit less"),
    pytest.param([limit("burst", 101), limit("hour", 900, 3600)], per_day(99), False, id="a wider limit"),
    pytest.param([limit("burst", 100, 59), limit("hour", 900, 3600)], per_day(99), False, id="a shorter window"),
    pytest.param([limit("burst", 100), limit("hour", 900, 3600)], None, False, id="no quota"),
    pytest.param([limit("burst", 100), limit("hour", 900, 3600)], per_day(100), False, id="a larger quota"),
]  # fmt: skip


@pytest.mark.parametrize("limits, quota, is_allowed", SISTERS)
async def test_a_limited_key_takes_over_no_key_that_may_do_more(
    app: Starlette, caller: HeldKey, limits: list[Any], quota: Quota | None, is_allowed: bool
) -> None:
    """A rotation shows the secret: a key that may rotate an unlimited one would have no limits."""
    sister = await hold_key(app, email=PARTNER, scopes=[], limits=limits, quota=quota)
    path = f"/v1/me/keys/{sister.access_key}"

    answers = [
        await call(app, "POST", f"{path}/rotate", key=caller, body={"grace_s": 0}),
        await call(app, "PATCH", path, key=caller, body={"name": "x"}),
    ]

    for answer in answers:
        if is_allowed:
            assert answer.status == 200, answer.body
        else:
            assert_problem(answer, 403, "key_wider")


async def test_a_key_without_limits_rotates_any_sister(app: Starlette) -> None:
    caller = await hold_key(app, email=PARTNER, scopes=MINE)
    sister = await hold_key(app, email=PARTNER, scopes=[], limits=[limit()])

    answer = await call(
        app, "POST", f"/v1/me/keys/{sister.access_key}/rotate", key=caller, body={"grace_s": 0}
    )

    assert answer.status == 200
