"""`GET /v1/audit`: the events, newest first, with filters and pages."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from latchkey.models.uuid7 import first_uuid7, uuid7
from tests.api import HeldKey, assert_problem, call, hold_key, rfc3339
from tests.conftest import on_mariadb
from tests.service.audit.events import events

FIELDS = {
    *(
        "id",
        "occurred_at",
        "actor",
        "action",
        "target",
        "before",
        "after",
        "address",
        "request_id",
        "position",
    ),
}


async def listed(app: Starlette, key: HeldKey, query: str = "") -> list[dict[str, Any]]:
    answer = await call(app, "GET", f"/v1/audit{query}", key=key)
    assert answer.status == 200, answer.body
    return answer.json["data"]


@pytest.fixture
async def ann(app: Starlette, operator: HeldKey) -> HeldKey:
    """Return a key that has made two changes: of its owner, and a new scope."""
    held = await hold_key(app, email="ann@example.com")
    await call(app, "PATCH", f"/v1/users/{held.user_id}", key=held, body={"name": "Ann"})
    await call(app, "POST", "/v1/scopes", key=held, body={"name": "orders:read"})
    return held


async def test_an_event_is_shown_as_it_was_written(app: Starlette, operator: HeldKey, ann: HeldKey) -> None:
    newest, change, *_ = await listed(app, operator)

    assert set(newest) == FIELDS
    assert (newest["action"], newest["target"]) == ("scope.created", {"kind": "scope", "id": "orders:read"})
    assert change["actor"] == {"kind": "key", "id": ann.access_key, "user_id": ann.user_id}
    assert (change["before"], change["after"]) == ({"name": "Operator"}, {"name": "Ann"})
    assert change["target"] == {"kind": "user", "id": str(ann.user_id)}
    assert change["position"] is None


async def test_filters_find_what_they_name(app: Starlette, operator: HeldKey, ann: HeldKey) -> None:
    whole = await listed(app, operator)
    by_ann = [one for one in whole if one["actor"]["id"] == ann.access_key]
    by_system = [one for one in whole if one["actor"]["kind"] == "system"]
    about_ann = [one for one in whole if one["target"] == {"kind": "user", "id": str(ann.user_id)}]

    assert len(by_ann) == 2
    assert len(by_system) == len(whole) - 2 > 0
    assert len(about_ann) == 2
    wanted = {
        f"?actor={ann.access_key}": by_ann,
        f"?actor=user:{ann.user_id}": by_ann,
        "?actor=key": by_ann,
        "?actor=system": by_system,
        "?actor=command": [],
        "?action=scope.created": [one for one in whole if one["action"] == "scope.created"],
        f"?target=user:{ann.user_id}": about_ann,
        "?target=scope:orders:read": whole[:1],
        "?target=orders:read": whole[:1],
        f"?target={ann.access_key}": [one for one in whole if one["target"]["id"] == ann.access_key],
        f"?actor=key&action=user.changed&target=user:{ann.user_id}": by_ann[1:],
    }
    assert {query: await listed(app, operator, query) for query in wanted} == wanted


async def test_times_bound_the_events(app: Starlette, operator: HeldKey, ann: HeldKey) -> None:
    whole = await listed(app, operator)
    second = (await events())[-2].occurred_at

    later = await listed(app, operator, f"?from={quote(rfc3339(second))}")
    earlier = await listed(app, operator, f"?to={quote(rfc3339(second))}")

    assert later == whole[:2]
    assert earlier == whole[2:]
    assert await listed(app, operator, "?from=1900-01-01T00:00:00Z") == whole


async def test_pages_continue_where_the_last_one_ended(
    app: Starlette, operator: HeldKey, ann: HeldKey
) -> None:
    whole = await listed(app, operator)

    found, target = [], "/v1/audit?limit=2&actor=system"
    while target:
        answer = await call(app, "GET", target, key=operator)
        found += answer.json["data"]
        link = answer.headers.get("link", "")
        target = link.partition(">")[0].removeprefix("<")

    assert found == [one for one in whole if one["actor"]["kind"] == "system"]
    assert len(found) > 2


@pytest.mark.parametrize(
    "query, code",
    [
        ("?from=yesterday", "invalid_parameter"),
        ("?from=9999-12-31T23:59:59-14:00", "invalid_parameter"),
        ("?actor=", "invalid_parameter"),
        ("?actor=a%20b", "invalid_parameter"),
        (f"?target={'x' * 101}", "invalid_parameter"),
        ("?cursor=x", "invalid_cursor"),
    ],
)
async def test_a_wrong_query_is_refused(app: Starlette, operator: HeldKey, query: str, code: str) -> None:
    assert_problem(await call(app, "GET", f"/v1/audit{query}", key=operator), 400, code)


@on_mariadb
@pytest.mark.parametrize(
    "condition, index",
    [
        ("actor_kind = 'system'", "actor_kind"),
        ("actor_id = 'lka_7'", "actor_id"),
        ("actor_user_id = 7", "actor_user_id"),
        ("action = 'user.changed'", "action"),
        ("target_id = '7'", "target_id"),
    ],
)
async def test_each_filter_has_an_index_in_the_order_of_the_list(
    app: Starlette, condition: str, index: str
) -> None:
    async with app.state.db.engine.connect() as connection:
        plan = await connection.execute(
            text(
                f"EXPLAIN FORMAT=JSON SELECT * FROM audit_events FORCE INDEX (ix_audit_events_{index}) "
                f"WHERE {condition} ORDER BY id DESC LIMIT 51"
            )
        )
        shown = str(plan.scalar_one())

    assert f"ix_audit_events_{index}" in shown
    assert "filesort" not in shown


def test_ids_sort_by_their_time() -> None:
    moment = datetime(2026, 11, 27, 12, tzinfo=UTC)
    moments = [moment + timedelta(microseconds=step) for step in range(0, 3000, 7)]

    made = [uuid7(one) for one in moments]

    assert made == sorted(made)
    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {"specified in RFC 4122"}
    assert made[0].int >> 80 == int(moment.timestamp() * 1000)
    assert all(
        first_uuid7(at) <= one < first_uuid7(at + timedelta(microseconds=1))
        for at, one in zip(moments, made, strict=True)
    )
