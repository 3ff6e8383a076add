"""Limits through all middleware: the charged accounts, the headers of every answer, and the behaviour in an outage."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import IdempotencyKey, LimitCounter, User
from latchkey.models.limit import Quota
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.limits.account import Account
from latchkey.service.limits.charger import Charger
from latchkey.service.limits.enforcement import Limits
from latchkey.service.operation import Operation, route
from latchkey.service.problems import Problem
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import table_of
from tests.requests import Answer, request
from tests.service.limits.rules import limit, limit_owner, per_day, policy, remaining, standing

EMAIL = "partner@example.com"
LIMITED = Account("key:1", "", (), per_day(1))


class Done(msgspec.Struct):
    done: bool


async def work() -> Done:
    """Work."""
    return Done(done=True)


async def refund(request: Request) -> Done:
    """Refund the cost of the call, twice."""
    charge = request.state.charge
    await charge.refund()
    await charge.refund()
    return Done(done=True)


async def fail() -> Done:
    """Fail."""
    raise RuntimeError("on purpose")


@pytest.fixture
def on_outage(request: pytest.FixtureRequest) -> Any:
    """Return the setting, which a test may choose."""
    return getattr(request, "param", None)


@pytest.fixture
def settings(settings: Settings, on_outage: Any) -> Settings:
    return msgspec.structs.replace(settings, limits_on_outage=on_outage)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("GET", "/job", work, any_key=True),
        route("GET", "/free", work, any_key=True, cost=0),
        route("GET", "/dear", work, any_key=True, cost=5),
        route("GET", "/scoped", work, scope="work:do"),
        route("GET", "/refunded", refund, any_key=True),
        route("GET", "/failing", fail, any_key=True),
    )


async def test_the_third_of_two_is_refused_and_told_when_to_come_again(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], limits=[limit()])

    answers = [await call(app, "GET", "/job", key=key) for _ in range(3)]

    assert [one.status for one in answers] == [200, 200, 429]
    assert_problem(answers[2], 429, "rate_limited")
    assert 58 <= int(answers[2].headers["retry-after"]) <= 60
    assert "'burst'" in answers[2].json["detail"]
    assert [remaining(one) for one in answers] == [{"burst": 1}, {"burst": 0}, {"burst": 0}]
    assert [policy(one) for one in answers] == [{"burst": {"q": 2, "w": 60}}] * 3
    assert 58 <= standing(answers[2])["burst"]["t"] <= 60


async def test_waiting_as_long_as_told_is_enough(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], limits=[limit(limit=1, window_s=1)])
    assert (await call(app, "GET", "/job", key=key)).status == 200
    refused = await call(app, "GET", "/job", key=key)

    await asyncio.sleep(int(refused.headers["retry-after"]))

    assert (await call(app, "GET", "/job", key=key)).status == 200


@pytest.mark.parametrize("per, at_most_s", [("day", 86400), ("month", 31 * 86400)])
async def test_a_quota_lasts_until_its_period_ends(app: Starlette, per: Any, at_most_s: int) -> None:
    key = await hold_key(app, scopes=[], quota=Quota(limit=1, per=per))
    assert (await call(app, "GET", "/job", key=key)).status == 200

    refused = await call(app, "GET", "/job", key=key)

    assert_problem(refused, 429, "quota_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= at_most_s
    assert int(refused.headers["retry-after"]) == standing(refused)["quota"]["t"]


async def test_all_keys_of_an_owner_count_together_and_each_for_itself(app: Starlette) -> None:
    first = await hold_key(app, scopes=[], email=EMAIL, limits=[limit(limit=2)])
    second = await hold_key(app, scopes=[], email=EMAIL)
    await limit_owner(app, first.user_id, limit(limit=3), quota=per_day(9))

    answers = [await call(app, "GET", "/job", key=key) for key in (first, second, first, first, second)]

    assert [one.status for one in answers] == [200, 200, 200, 429, 429]
    assert remaining(answers[0]) == {"burst": 1, "owner.burst": 2, "owner.quota": 8}
    assert remaining(answers[4]) == {"owner.burst": 0, "owner.quota": 6}
    assert policy(answers[0])["owner.burst"] == {"q": 3, "w": 60}


async def test_other_keys_and_owners_are_not_touched(app: Starlette) -> None:
    limited = await hold_key(app, scopes=[], limits=[limit(limit=1)])
    other = await hold_key(app, scopes=[], limits=[limit(limit=1)])

    assert (await call(app, "GET", "/job", key=limited)).status == 200
    assert (await call(app, "GET", "/job", key=limited)).status == 429
    assert (await call(app, "GET", "/job", key=other)).status == 200


async def test_a_key_without_limits_is_told_nothing_and_leaves_nothing(app: Starlette) -> None:
    key = await hold_key(app, scopes=[])

    answer = await call(app, "GET", "/job", key=key)

    assert not {"ratelimit", "ratelimit-policy"} & answer.headers.keys()
    assert await LimitCounter.filter().count() == 0


async def test_a_route_charges_what_it_costs(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], limits=[limit(limit=7)])

    paths = ("/free", "/dear", "/dear", "/job", "/free")
    answers = [await call(app, "GET", path, key=key) for path in paths]

    assert [one.status for one in answers] == [200, 200, 429, 200, 200]
    assert [remaining(one)["burst"] for one in answers] == [7, 2, 2, 1, 1]


async def test_a_call_that_never_fits_is_not_told_to_wait(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], limits=[limit(limit=4)])

    answer = await call(app, "GET", "/dear", key=key)

    assert_problem(answer, 403, "cost_above_limit")
    assert remaining(answer) == {"burst": 4}


async def test_a_charge_is_refunded_only_once(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], limits=[limit(limit=3)], quota=per_day(3))
    await call(app, "GET", "/job", key=key)

    answer = await call(app, "GET", "/refunded", key=key)

    assert answer.status == 200
    assert remaining(answer) == {"burst": 2, "quota": 2}


async def test_a_call_that_is_sent_twice_is_charged_once(app: Starlette) -> None:
    key = await hold_key(app, limits=[limit(limit=5)], quota=per_day(5))
    body = {"email": "ann@example.com", "name": "Ann"}
    once: dict[str, Any] = {"key": key, "body": body, "headers": [("idempotency-key", "1")]}

    answers = [await call(app, "POST", "/v1/users", **once) for _ in range(3)]

    assert [one.status for one in answers] == [201, 201, 201]
    assert [remaining(one) for one in answers] == [{"burst": 4, "quota": 4}] * 3


async def test_the_replay_of_an_idempotent_call_costs_nothing_and_is_answered_when_nothing_is_left(
    app: Starlette,
) -> None:
    """A client that lost the answer to the last call of the month still gets it."""
    key = await hold_key(app, scopes=["users:write"], quota=per_day(1))
    body = {"email": "ann@example.com", "name": "Ann"}
    create = [
        await call(app, "POST", "/v1/users", key=key, body=body, headers=[("idempotency-key", name)])
        for name in ("one", "one", "two")
    ]

    first, replay, other = create
    assert (first.status, replay.status, replay.headers["idempotent-replayed"]) == (201, 201, "true")
    assert replay.body == first.body
    assert remaining(replay) == {"quota": 0}
    assert_problem(other, 429, "quota_exceeded")


async def test_a_replay_whose_answer_has_gone_is_charged(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored answer may expire between the check for it and its use: the call is then an ordinary one."""
    key = await hold_key(app, scopes=["users:write"], quota=per_day(2))
    look = app.state.latchkey.limits._exempt

    async def exempt(scope: Any) -> bool:
        found: bool = await look(scope)
        async with app.state.db.engine.begin() as connection:
            await connection.execute(delete(table_of(IdempotencyKey)))
        return found

    async def create(name: str) -> Answer:
        body = {"email": f"{name}@example.com", "name": "Ann"}
        return await call(app, "POST", "/v1/users", key=key, body=body, headers=[("idempotency-key", "one")])

    assert (await create("first")).status == 201
    monkeypatch.setattr(app.state.latchkey.limits, "_exempt", exempt)
    second = await create("second")
    monkeypatch.setattr(app.state.latchkey.limits, "_exempt", look)
    assert (second.status, remaining(second)) == (201, {"quota": 0})

    monkeypatch.setattr(app.state.latchkey.limits, "_exempt", exempt)
    third = await create("third")

    assert_problem(third, 429, "quota_exceeded")
    assert await User.filter(email_key="third@example.com").count() == 0


async def test_copies_that_come_at_once_cost_one_call(app: Starlette) -> None:
    """Those that were charged before are refunded."""
    key = await hold_key(app, scopes=["users:write"], limits=[limit(limit=9)])
    body = {"email": "ann@example.com", "name": "Ann"}

    answers = await asyncio.gather(
        *(
            call(app, "POST", "/v1/users", key=key, body=body, headers=[("idempotency-key", "one")])
            for _ in range(4)
        )
    )

    assert [one.status for one in answers] == [201] * 4
    last = await call(app, "GET", "/free", key=key)
    assert remaining(last) == {"burst": 8}


# ---------------------------------------------------------------------- every kind of answer


async def replayed(app: Starlette, key: HeldKey) -> Answer:
    """Send a signed call twice."""
    signed = sign_query(
        key.secret,
        "",
        key.access_key,
        app.state.latchkey.verifier.clock(),
        method="GET",
        path="/job",
        nonce="n" * 20,
    )
    sent = {"query": signed[0], "headers": {"secret": signed[1]}}
    await request(app, "GET", "/job", **sent)
    return await request(app, "GET", "/job", **sent)


@pytest.mark.parametrize(
    "path, status, left",
    [
        pytest.param("/job", 200, 4, id="the endpoint"),
        pytest.param("/scoped", 403, 5, id="a missing scope"),
        pytest.param("/job?x=1", 400, 4, id="a wrong parameter"),
        pytest.param("/failing", 500, 4, id="the last resort"),
    ],
)
async def test_every_answer_says_how_the_limits_stand(
    app: Starlette, path: str, status: int, left: int
) -> None:
    key = await hold_key(app, scopes=[], limits=[limit(limit=5)])

    answer = await call(app, "GET", path, key=key)

    assert answer.status == status
    assert remaining(answer) == {"burst": left}
    assert policy(answer) == {"burst": {"q": 5, "w": 60}}


async def test_a_replayed_call_is_charged_once_and_told(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], mode="signed", limits=[limit(limit=5)])

    answer = await replayed(app, key)

    assert_problem(answer, 401, "replayed")
    assert remaining(answer) == {"burst": 4}


async def test_an_address_that_is_not_allowed_is_told_and_not_charged(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], limits=[limit(limit=5)], allowed_networks=["192.0.2.0/24"])

    answer = await call(app, "GET", "/job", key=key)

    assert_problem(answer, 403, "network_not_allowed")
    assert remaining(answer) == {"burst": 5}


async def test_an_unauthenticated_caller_gets_no_limit_headers(app: Starlette) -> None:
    key = await hold_key(app, scopes=[], limits=[limit()])

    answer = await call(app, "GET", "/job", headers=[("authorization", f"Bearer {key.secret}x")])

    assert_problem(answer, 401, "unauthenticated")
    assert "ratelimit" not in answer.headers
    assert await LimitCounter.filter().count() == 0


async def test_a_call_that_is_exempt_is_told_and_not_charged(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def exempt(scope: Any) -> bool:
        return bool(scope["query_string"] == b"x=1")

    key = await hold_key(app, scopes=[], limits=[limit(limit=5)])
    monkeypatch.setattr(app.state.latchkey.limits, "_exempt", exempt)

    spared, charged = [await call(app, "GET", f"/job?x={n}", key=key) for n in (1, 2)]

    assert (remaining(spared), remaining(charged)) == ({"burst": 5}, {"burst": 4})


# ---------------------------------------------------------------------- unreachable counters

LOST = OperationalError("SELECT", {}, Exception(2003, "Can't connect"))
FULL = PoolTimeoutError("QueuePool limit")


@pytest.mark.parametrize("error", [LOST, FULL], ids=["no server", "no connection free"])
@pytest.mark.parametrize(
    "on_outage, quota, status",
    [
        pytest.param(None, None, 200, id="limits, by default"),
        pytest.param(None, per_day(5), 503, id="a quota, by default"),
        pytest.param("refuse", None, 503, id="limits, refused"),
        pytest.param("allow", per_day(5), 200, id="a quota, allowed"),
    ],
    indirect=["on_outage"],
)
async def test_out_of_reach_it_refuses_or_allows(
    app: Starlette,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: list[logging.LogRecord],
    error: Exception,
    on_outage: Any,
    quota: Quota | None,
    status: int,
) -> None:
    tried = []

    async def fail(subjects: object) -> None:
        tried.append(subjects)
        raise error

    key = await hold_key(app, scopes=[], limits=[limit()], quota=quota)
    monkeypatch.setattr(app.state.latchkey.limits._charger._counters, "read", fail)

    answers = [await call(app, "GET", "/job", key=key) for _ in range(5)]

    assert [one.status for one in answers] == [status] * 5
    assert len(tried) == 5  # no answer waits for the database twice
    assert all("ratelimit" not in one.headers for one in answers)
    assert {tuple(policy(one)) for one in answers} == {("burst", "quota") if quota else ("burst",)}
    warnings = [one for one in log_lines if one.name == "latchkey.limits"]
    assert [one.levelno for one in warnings] == [logging.WARNING]
    assert ("let in uncounted" in warnings[0].getMessage()) is (status == 200)


async def test_an_answer_does_not_wait_for_its_headers(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_subjects: object) -> None:
        await asyncio.Event().wait()

    key = await hold_key(app, scopes=[], limits=[limit()])
    monkeypatch.setattr("latchkey.service.limits.enforcement.LOOK_DEADLINE_S", 0.05)
    monkeypatch.setattr(app.state.latchkey.limits._charger._counters, "read", hang)

    answer = await call(app, "GET", "/free", key=key)

    assert answer.status == 200
    assert policy(answer) == {"burst": {"q": 2, "w": 60}}
    assert "ratelimit" not in answer.headers


async def test_an_error_of_ours_is_no_outage(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_subjects: object) -> None:
        raise OperationalError("SELECT", {}, Exception(1146, "no such table"))

    key = await hold_key(app, scopes=[], limits=[limit()])
    monkeypatch.setattr(app.state.latchkey.limits._charger._counters, "read", fail)

    assert (await call(app, "GET", "/job", key=key)).status == 500


async def test_an_outage_is_told_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    class Lost(Charger):
        def __init__(self) -> None: ...
        async def charge(self, accounts: object, cost: int) -> Any:
            raise LOST

    now = 100.0
    limits = Limits(Lost(), clock=lambda: now)
    scope = {"state": {"accounts": (LIMITED,)}}
    with caplog.at_level(logging.WARNING, "latchkey.limits"):
        for moment in (100.0, 101.0, 109.0, 110.0):
            now = moment
            with pytest.raises(OperationalError):
                await limits.refusal(scope, cost=1)

    assert [line.getMessage().partition(": ")[0] for line in caplog.records] == [
        "the limit counters cannot be reached, a call is refused; 0 more since the last line",
        "the limit counters cannot be reached, a call is refused; 2 more since the last line",
    ]


async def test_a_busy_counter_is_a_problem_and_no_outage() -> None:
    class Busy(Charger):
        def __init__(self) -> None: ...
        async def charge(self, accounts: object, cost: int) -> Any:
            raise Problem("unavailable", "Too many.")

    found = await Limits(Busy(), "allow").refusal({"state": {"accounts": (LIMITED,)}}, cost=1)

    assert found is not None
    assert found.code == "unavailable"
