"""`/v1/gate/rules`: rules that calls store, beside those of the file."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette

from latchkey.service.gate.in_force import FRESH_S, TRUST_S, RulesInForce
from latchkey.service.gate.rules import Rules
from latchkey.service.gate.target import Host
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.requests import Answer
from tests.service.gate.asking import HOST, ask

PATH = "/v1/gate/rules"
FILE = """
[[rules]]
name = "health"
hosts = ["api.example.com"]
paths = ["/health"]
public = true
"""
ORDERS: dict[str, Any] = {"name": "orders", "paths": ["/orders/**"], "scope": "users:read", "cost": 2}
ALL: dict[str, Any] = {"name": "all", "paths": ["/**"], "any_key": True}
NO_DATABASE = create_async_engine("mysql+asyncmy://nobody@127.0.0.1:1/none")
WHOLE: dict[str, Any] = {
    "hosts": [],
    "methods": [],
    "scope": None,
    "any_key": False,
    "public": False,
    "cost": 1,
}


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "gate.toml"
    file.write_text(FILE)
    return msgspec.structs.replace(settings, gate_rules=str(file), trusted_proxies="127.0.0.0/8")


@pytest.fixture
def clock(app: Starlette) -> Clock:
    """Return the clock of the gate, which moves only by hand."""
    clock = Clock()
    app.state.latchkey.gate.rules._clock = clock
    return clock


async def change(app: Starlette, key: HeldKey, method: str, target: str = "", body: Any = None) -> Answer:
    return await call(app, method, PATH + target, key=key, body=body)


async def names(app: Starlette, key: HeldKey) -> list[str]:
    return [one["name"] for one in (await change(app, key, "GET")).json["data"]]


async def test_the_rules_in_force_are_shown_in_their_order(app: Starlette, operator: HeldKey) -> None:
    before = (await change(app, operator, "GET")).json
    put = await change(app, operator, "PUT", body={"data": [ORDERS, ALL], "version": 0})
    after = (await change(app, operator, "GET")).json

    health = {**WHOLE, "name": "health", "hosts": [HOST], "paths": ["/health"], "public": True}
    assert before == {"version": 0, "updated_at": None, "file": [health], "data": []}
    assert (put.status, put.json) == (200, {"version": 1})
    assert after.pop("updated_at") is not None
    assert after == {"version": 1, "file": [health], "data": [{**WHOLE, **ORDERS}, {**WHOLE, **ALL}]}
    again = await change(app, operator, "PUT", body={"data": after["data"]})
    assert again.json == {"version": 2}


async def test_a_change_is_in_force_after_a_second_in_every_worker(
    app: Starlette, operator: HeldKey, clock: Clock
) -> None:
    other = RulesInForce(Rules(), lambda: app.state.db.reader, clock=clock)

    async def decided() -> list[Any]:
        rule = (await other.current()).find("GET", "https", Host(HOST, None), ("orders",))
        own = await ask(app, "GET", "/orders", key=operator)
        return [own.status, rule is not None]

    assert await decided() == [403, False]
    await change(app, operator, "PUT", body={"data": [ORDERS]})
    assert await decided() == [403, False]  # within the second
    clock.now += FRESH_S
    assert await decided() == [204, True]
    await change(app, operator, "DELETE", "/orders")
    clock.now += FRESH_S
    assert await decided() == [403, False]


async def test_the_file_decides_before_the_stored_rules(
    app: Starlette, operator: HeldKey, clock: Clock
) -> None:
    stored = {"name": "closed", "paths": ["/health"], "scope": "users:read"}
    await change(app, operator, "PUT", body={"data": [stored]})

    of_file = await ask(app, "GET", "/health")
    of_call = await ask(app, "GET", "/health", host="other.example.com")

    assert (of_file.status, of_call.status) == (204, 401)


async def test_a_rule_decides_about_scope_and_cost(app: Starlette, operator: HeldKey, clock: Clock) -> None:
    await change(app, operator, "PUT", body={"data": [ORDERS, {**ALL, "hosts": ["*.example.com"]}]})
    weak = await hold_key(app, email="weak@example.com", scopes=["keys:read"])

    refused = await ask(app, "GET", "/orders/7", key=weak)
    permitted = await ask(app, "GET", "/files", key=weak)
    elsewhere = await ask(app, "GET", "/files", key=weak, host="example.org")

    assert_problem(refused, 403, "scope_missing")
    assert permitted.status == 204
    assert_problem(elsewhere, 403, "no_gate_rule")


async def test_a_rule_is_added_replaced_and_removed(app: Starlette, operator: HeldKey) -> None:
    last = await change(app, operator, "POST", body={"rule": ALL})
    first = await change(app, operator, "POST", body={"rule": ORDERS, "before": "all", "version": 1})
    assert await names(app, operator) == ["orders", "all"]
    read = await change(app, operator, "GET", "/orders")
    renamed = await change(
        app, operator, "PUT", "/orders", {"rule": {**ORDERS, "name": "sales"}, "version": 2}
    )
    assert await names(app, operator) == ["sales", "all"]
    moved = await change(app, operator, "PUT", "/all", {"rule": ALL, "before": "sales", "version": 3})
    assert await names(app, operator) == ["all", "sales"]
    removed = await change(app, operator, "DELETE", "/all?version=4")
    assert await names(app, operator) == ["sales"]

    assert (last.status, last.headers["location"]) == (201, f"{PATH}/all")
    assert (first.status, first.json) == (201, {"version": 2})
    assert read.json == {**WHOLE, **ORDERS}
    assert (renamed.status, renamed.json) == (200, {"version": 3})
    assert (moved.status, moved.json) == (200, {"version": 4})
    assert (removed.status, removed.json) == (200, {"version": 5})


@pytest.mark.parametrize(
    "method, target, body",
    [
        pytest.param("PUT", "", {"data": [], "version": 1}, id="all"),
        pytest.param("POST", "", {"rule": ALL, "version": 1}, id="one more"),
        pytest.param("PUT", "/orders", {"rule": ORDERS, "version": 1}, id="one"),
        pytest.param("DELETE", "/orders?version=1", None, id="none"),
    ],
)
async def test_a_change_of_an_older_version_changes_nothing(
    app: Starlette, operator: HeldKey, method: str, target: str, body: Any
) -> None:
    for _ in range(2):
        await change(app, operator, "PUT", body={"data": [ORDERS]})

    answer = await change(app, operator, method, target, body)

    assert_problem(answer, 409, "version_changed")
    assert "the version 2" in answer.json["detail"]
    assert (await change(app, operator, "GET")).json["version"] == 2


@on_sqlite
@pytest.mark.parametrize(
    "method, target, body, status, code, pointer",
    [
        ("POST", "", {"rule": ORDERS}, 409, "gate_rule_taken", None),
        ("PUT", "/all", {"rule": ORDERS}, 409, "gate_rule_taken", None),
        ("PUT", "/all", {"rule": ALL, "before": "all"}, 422, "invalid_body", "/before"),
        ("PUT", "/none", {"rule": {**ORDERS, "name": "none"}}, 404, "not_found", None),
        ("DELETE", "/none", None, 404, "not_found", None),
        ("GET", "/none", None, 404, "not_found", None),
        ("DELETE", "/all?version=x", None, 400, "invalid_parameter", None),
        ("POST", "", {"rule": {**ALL, "name": "b"}, "before": "none"}, 422, "invalid_body", "/before"),
        ("POST", "", {"rule": {"name": "b", "paths": ["/a"]}}, 422, "invalid_body", "/rule"),
        ("POST", "", {"rule": {**ALL, "public": True}}, 422, "invalid_body", "/rule"),
        ("POST", "", {"rule": {"paths": ["/a"], "public": True}}, 422, "invalid_body", "/rule/name"),
        ("POST", "", {"rule": {**ALL, "name": "B"}}, 422, "invalid_body", "/rule/name"),
        ("POST", "", {"rule": {**ORDERS, "name": "b", "scope": "users:reed"}}, 422, "invalid_body", "/rule/scope"),
        ("PUT", "/all", {"rule": {**ALL, "hosts": ["a", "b c"]}}, 422, "invalid_body", "/rule/hosts/1"),
        ("PUT", "", {"data": [ALL, {**ORDERS, "paths": ["/a/../b"]}]}, 422, "invalid_body", "/data/1/paths/0"),
        ("PUT", "", {"data": [ALL, {**ORDERS, "scope": "a:b"}]}, 422, "invalid_body", "/data/1/scope"),
        ("PUT", "", {"data": [ALL, ORDERS, ALL]}, 422, "invalid_body", "/data/2/name"),
        ("PUT", "", {"data": [{**ALL, "name": f"a{n}", "hosts": ["h" * 250]} for n in range(1000)]}, 422, "invalid_body", "/data"),
        ("PUT", "", {"data": [{**ALL, "name": f"a{n}"} for n in range(1001)]}, 422, "invalid_body", "/data"),
    ],
)  # fmt: skip
async def test_a_wrong_change_is_refused(
    app: Starlette,
    operator: HeldKey,
    method: str,
    target: str,
    body: Any,
    status: int,
    code: str,
    pointer: str | None,
) -> None:
    await change(app, operator, "PUT", body={"data": [ORDERS, ALL]})

    answer = await change(app, operator, method, target, body)

    assert_problem(answer, status, code)
    assert pointer is None or answer.json["errors"][0]["pointer"] == pointer
    assert await names(app, operator) == ["orders", "all"]


async def test_simultaneous_changes_are_all_made(app: Starlette, operator: HeldKey) -> None:
    await change(app, operator, "PUT", body={"data": []})

    rules = [{**ALL, "name": f"r{n}"} for n in range(12)]
    answers = await asyncio.gather(*(change(app, operator, "POST", body={"rule": one}) for one in rules))

    assert sorted(one.json["version"] for one in answers) == list(range(2, 14))
    assert sorted(await names(app, operator)) == sorted(one["name"] for one in rules)


async def test_a_scope_that_a_rule_needs_is_not_removed(app: Starlette, operator: HeldKey) -> None:
    await call(app, "POST", "/v1/scopes", key=operator, body={"name": "orders:read"})
    await change(app, operator, "PUT", body={"data": [{**ORDERS, "scope": "orders:read"}]})

    answer = await call(app, "DELETE", "/v1/scopes/orders:read", key=operator)

    assert_problem(answer, 409, "scope_in_use")
    assert "need the scope orders:read: orders." in answer.json["detail"]


@pytest.mark.parametrize("fault", ["no database", "rules of another release"])
async def test_the_known_rules_stay_for_a_while_if_none_can_be_read(
    app: Starlette, operator: HeldKey, clock: Clock, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    await change(app, operator, "PUT", body={"data": [ALL]})
    assert (await ask(app, "GET", "/x", key=operator)).status == 204
    if fault == "no database":
        app.state.latchkey.gate.rules._engine = lambda: NO_DATABASE
    else:
        async with app.state.db.engine.begin() as connection:
            await connection.execute(text("UPDATE gate_rule_sets SET version = 2, rules = '[{}]'"))

    with caplog.at_level(logging.WARNING, "latchkey.gate"):
        clock.now += TRUST_S
        known = await ask(app, "GET", "/x", key=operator)
        clock.now += FRESH_S
        unknown = await ask(app, "GET", "/x", key=operator)

    assert known.status == 204
    assert_problem(unknown, 503, "unavailable")
    assert len([one for one in caplog.messages if "the stored rules of the gate cannot be" in one]) == 2


async def test_without_any_reading_nothing_is_decided(app: Starlette) -> None:
    app.state.latchkey.gate.rules._engine = lambda: NO_DATABASE

    assert_problem(await ask(app, "GET", "/health"), 503, "unavailable")


async def test_one_reading_serves_all_that_wait(app: Starlette, clock: Clock) -> None:
    """The request that started it may be cancelled."""
    rules: RulesInForce = app.state.latchkey.gate.rules
    first, *others = [asyncio.create_task(rules.current()) for _ in range(3)]
    await asyncio.sleep(0)
    reading = rules._reading
    first.cancel()

    found = await asyncio.gather(*others)

    assert first.cancelled()
    assert reading is not None
    assert [len(one.all) for one in found] == [1, 1]
    await rules.close()
