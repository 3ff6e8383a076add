"""Credits of keys: given, spent, changed by a number, and shown; and that no key escapes its own."""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.models import LimitCounter
from latchkey.models.limit import MOST_CREDITS, Credits, Refill
from latchkey.service.endpoints.me import read_me
from latchkey.service.housekeeping import purge
from latchkey.service.operation import Operation, route
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, key_row
from tests.conftest import on_mariadb
from tests.requests import Answer
from tests.service.limits.rules import limit, policy, remaining

PARTNER = "partner@example.com"
MINE = ["me.keys:read", "me.keys:write"]
KEY = {"name": "n", "mode": "bearer", "scopes": []}
MONTHLY = {"amount": 50, "every": "month"}


@pytest.fixture
def routes() -> list[Operation]:
    return [route("GET", "/v1/costly", read_me, any_key=True, cost=3, tag="service")]


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    return await hold_key(app, email=PARTNER, scopes=MINE, credits=Credits(remaining=10))


async def change(
    app: Starlette, operator: HeldKey, key: HeldKey, delta: int, *headers: tuple[str, str]
) -> Answer:
    path = f"/v1/keys/{key.access_key}/credits"
    return await call(app, "POST", path, key=operator, body={"delta": delta}, headers=headers)


async def shown(app: Starlette, operator: HeldKey, key: HeldKey) -> Any:
    """Return the credits of a key as its row shows them."""
    return (await call(app, "GET", f"/v1/keys/{key.access_key}", key=operator)).json["credits"]


async def test_a_key_is_created_with_credits_and_spends_them(app: Starlette, operator: HeldKey) -> None:
    body = {**KEY, "user_id": operator.user_id, "credits": {"remaining": 4, "refill": MONTHLY}}
    made = await call(app, "POST", "/v1/keys", key=operator, body=body)
    bearer = ("authorization", f"Bearer {made.json['secret']}")

    answers = [await call(app, "GET", "/v1/costly", headers=[bearer]) for _ in range(2)]
    me = await call(app, "GET", "/v1/me", headers=[bearer])

    assert made.json["credits"] == {"remaining": 4, "refill": MONTHLY}
    assert answers[0].json["key"]["credits"] == {"remaining": 1, "refill": MONTHLY}
    assert remaining(answers[0]) == {"credits": 1}
    assert policy(answers[0])["credits"]["q"] == 50
    assert_problem(answers[1], 402, "credits_used_up")
    assert answers[1].json["detail"] == "The call costs 3, and the key has 1 credits left."
    assert int(answers[1].headers["retry-after"]) == pytest.approx(remaining_seconds(answers[1]), abs=1)
    assert me.json["key"]["credits"]["remaining"] == 0


def remaining_seconds(answer: Answer) -> int:
    return int(answer.headers["ratelimit"].partition("t=")[2])


async def test_without_a_refill_no_wait_is_named(app: Starlette, operator: HeldKey) -> None:
    key = await hold_key(app, scopes=[], credits=Credits(remaining=0))

    answer = await call(app, "GET", "/v1/me", key=key)

    assert_problem(answer, 402, "credits_used_up")
    assert "retry-after" not in answer.headers
    assert answer.headers["ratelimit"] == '"credits";r=0'


async def test_a_page_and_a_key_show_them(app: Starlette, operator: HeldKey, partner: HeldKey) -> None:
    await call(app, "GET", "/v1/me", key=partner)

    page = await call(app, "GET", "/v1/keys", key=operator)
    own = await call(app, "GET", f"/v1/me/keys/{partner.access_key}", key=partner)

    assert [one["credits"] for one in page.json["data"]] == [None, {"remaining": 9, "refill": None}]
    assert own.json["credits"] == {"remaining": 8, "refill": None}


async def test_they_are_changed_by_a_number_once_for_each_idempotency_key(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    once = ("idempotency-key", "order-7")

    answers = [await change(app, operator, partner, 500, once) for _ in range(3)]
    taken = await change(app, operator, partner, -10)

    assert [one.json["credits"]["remaining"] for one in answers] == [510] * 3
    assert taken.json["credits"] == {"remaining": 500, "refill": None}
    assert await shown(app, operator, partner) == {"remaining": 500, "refill": None}


async def test_changes_and_charges_at_the_same_time_are_all_counted(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(call(app, "GET", "/v1/me", key=partner)) for _ in range(10)]
        changes = [group.create_task(change(app, operator, partner, 5)) for _ in range(5)]

    assert {one.result().status for one in [*calls, *changes]} == {200}
    assert await shown(app, operator, partner) == {"remaining": 25, "refill": None}


@pytest.mark.parametrize(
    "delta, status, code",
    [
        pytest.param(-11, 409, "too_few_credits", id="more than there are"),
        pytest.param(MOST_CREDITS, 422, "invalid_body", id="more than a key can have"),
        pytest.param(MOST_CREDITS + 1, 422, "invalid_body", id="more than any change"),
        pytest.param(0.5, 422, "invalid_body", id="a half"),
    ],
)
async def test_a_change_that_cannot_be_is_refused(
    app: Starlette, operator: HeldKey, partner: HeldKey, delta: Any, status: int, code: str
) -> None:
    answer = await change(app, operator, partner, delta)

    assert_problem(answer, status, code)
    assert await shown(app, operator, partner) == {"remaining": 10, "refill": None}


async def test_credits_are_set_and_removed(app: Starlette, operator: HeldKey) -> None:
    key = await hold_key(app, scopes=[], email=PARTNER, limits=[limit("burst", 100)])
    path = f"/v1/keys/{key.access_key}"
    await call(app, "GET", "/v1/me", key=key)

    none = await change(app, operator, key, 5)
    set_once = await call(
        app, "PATCH", path, key=operator, body={"credits": {"remaining": 7, "refill": MONTHLY}}
    )
    renamed = await call(app, "PATCH", path, key=operator, body={"name": "x"})
    await change(app, operator, key, 0)
    charged = await call(app, "GET", "/v1/me", key=key)
    removed = await call(app, "PATCH", path, key=operator, body={"credits": None})
    free = await call(app, "GET", "/v1/me", key=key)

    assert_problem(none, 409, "key_without_credits")
    assert set_once.json["credits"] == renamed.json["credits"] == {"remaining": 7, "refill": MONTHLY}
    assert remaining(charged) == {"burst": 98, "credits": 6}
    assert removed.json["credits"] is None
    assert remaining(free) == {"burst": 97}
    assert free.json["key"]["credits"] is None


WRONG = [
    pytest.param({"remaining": -1}, "/credits/remaining", id="less than none"),
    pytest.param({"remaining": MOST_CREDITS + 1}, "/credits/remaining", id="too many"),
    pytest.param({"refill": MONTHLY}, "/credits/remaining", id="no number"),
    pytest.param({"remaining": 1, "refill": {"amount": 0, "every": "day"}}, "/credits/refill/amount", id="a refill of 0"),
    pytest.param({"remaining": 1, "refill": {"amount": 1, "every": "week"}}, "/credits/refill/every", id="a week"),
    pytest.param({"remaining": 1, "per": "day"}, "/credits/per", id="a field too many"),
]  # fmt: skip


@pytest.mark.parametrize("credits, pointer", WRONG)
async def test_wrong_credits_are_pointed_at(
    app: Starlette, operator: HeldKey, partner: HeldKey, credits: Any, pointer: str
) -> None:
    body = {**KEY, "user_id": partner.user_id, "credits": credits}
    answers = [
        await call(app, "POST", "/v1/keys", key=operator, body=body),
        await call(app, "PATCH", f"/v1/keys/{partner.access_key}", key=operator, body={"credits": credits}),
    ]

    for answer in answers:
        assert_problem(answer, 422, "invalid_body")
        assert [fault["pointer"] for fault in answer.json["errors"]] == [pointer]


async def test_a_limit_cannot_have_the_name_of_the_credits(app: Starlette, operator: HeldKey) -> None:
    body = {**KEY, "user_id": operator.user_id, "limits": [{"name": "credits", "limit": 1, "window_s": 60}]}

    answer = await call(app, "POST", "/v1/keys", key=operator, body=body)

    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"][0]["pointer"] == "/limits/0/name"


# ---------------------------------------------------------------------- keys of one's own


async def test_a_key_that_spends_credits_creates_keys_without_any(app: Starlette, partner: HeldKey) -> None:
    made = await call(app, "POST", "/v1/me/keys", key=partner, body=KEY)
    used = await call(app, "GET", "/v1/me", headers=[("authorization", f"Bearer {made.json['secret']}")])

    assert made.json["credits"] == {"remaining": 0, "refill": None}
    assert_problem(used, 402, "credits_used_up")


@pytest.mark.parametrize("field", [{"credits": None}, {"credits": {"remaining": 5}}])
async def test_partners_set_no_credits(app: Starlette, partner: HeldKey, field: dict[str, Any]) -> None:
    path = f"/v1/me/keys/{partner.access_key}"
    answers = [
        await call(app, "POST", "/v1/me/keys", key=partner, body={**KEY, **field}),
        await call(app, "PATCH", path, key=partner, body=field),
        await call(app, "POST", f"{path}/credits", key=partner, body={"delta": 5}),
    ]

    assert [one.status for one in answers] == [422, 422, 404]


async def test_a_key_that_spends_credits_takes_over_none_that_does_not(
    app: Starlette, partner: HeldKey
) -> None:
    free = await hold_key(app, email=PARTNER, scopes=[])
    paying = await hold_key(app, email=PARTNER, scopes=[], credits=Credits(remaining=1))
    rotation = {"grace_s": 0}

    refused = await call(app, "POST", f"/v1/me/keys/{free.access_key}/rotate", key=partner, body=rotation)
    allowed = await call(app, "POST", f"/v1/me/keys/{paying.access_key}/rotate", key=partner, body=rotation)

    assert_problem(refused, 403, "key_wider")
    assert (allowed.status, allowed.json["credits"]["remaining"]) == (200, 1)


# ---------------------------------------------------------------------- verification, purge, cost


async def test_a_verification_spends_and_shows_them(app: Starlette) -> None:
    service = await hold_key(app, scopes=["keys:verify"])
    key = await hold_key(
        app, email=PARTNER, scopes=[], credits=Credits(remaining=5, refill=Refill(amount=5, every="day"))
    )

    async def ask(**body: Any) -> Any:
        return (
            await call(app, "POST", "/v1/keys/verify", key=service, body={"credential": key.secret, **body})
        ).json

    first, preview, above = await ask(cost=3), await ask(cost=2, charge=False), await ask(cost=3)

    refill = {"amount": 5, "every": "day"}
    assert (first["valid"], first["credits"], first["limits"]) == (
        True,
        {"remaining": 2, "refill": refill},
        [],
    )
    assert (preview["valid"], preview["credits"]["remaining"]) == (True, 2)
    assert (above["code"], above["credits"]["remaining"]) == ("credits_used_up", 2)
    assert 0 < above["retry_after_s"] <= 24 * 60 * 60


async def test_the_counter_of_a_key_is_deleted_with_it_and_not_before(
    app: Starlette, partner: HeldKey
) -> None:
    await purge(app.state.db.engine, keys_kept_days=0)
    before = await LimitCounter.filter_by(subject=f"key:{partner.id}").count()
    async with app.state.db.scoped_session() as session:
        await (await key_row(partner.access_key)).update(status="revoked")
        await session.commit()

    await purge(app.state.db.engine, keys_kept_days=0)

    assert before == 1
    assert await LimitCounter.filter_by(subject=f"key:{partner.id}").count() == 0


@on_mariadb
async def test_a_read_with_credits_costs_as_much_as_one_with_a_limit(
    app: Starlette, operator: HeldKey, partner: HeldKey
) -> None:
    await call(app, "GET", "/v1/me", key=partner)

    with wire.listening() as commands:
        await call(app, "GET", "/v1/me", key=partner)
    with wire.listening() as of_keys:
        await call(app, "GET", "/v1/keys", key=operator)

    # key; the counter, read and written
    assert len(commands) == 3, commands
    # key; the page, and the counters of those that have credits
    assert len(of_keys) == 3, of_keys
