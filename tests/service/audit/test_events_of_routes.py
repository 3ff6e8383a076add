"""Every operation that changes something leaves one event, and every other call leaves none.

The cases are derived from the routes: a new operation that writes without an event fails the suite.
"""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from latchkey.models import AuditEvent
from latchkey.service.operation import Operation
from tests.api import HeldKey, call, hold_key, rotate_held, user_row
from tests.service.audit.events import events, last_event
from tests.service.test_matrix import (
    NOBODY,
    OWNER,
    PRIVATE,
    ask,
    hold_target,
    is_own,
    name_in_path,
    named,
    on_sqlite,
    scopes_of,
)

# Unsafe methods that change no row of the operator: they verify, explain or send again.
QUESTIONS = {
    "redeliver_events",
    "explain_signature",
    "explain_my_signature",
    "verify_key",
    "verify_my_key",
    "verify_keys",
    "ping_webhook",
}
WRITING = [one for one in PRIVATE if not one.safe and one.name not in QUESTIONS]
OTHERS = [one for one in PRIVATE if one not in WRITING]
ACTIONS = {
    "create_my_key": "key.created",
    "change_my_key": "key.changed",
    "rotate_my_key": "key.rotated",
    "revoke_my_key": "key.revoked",
    "create_user": "user.created",
    "change_user": "user.changed",
    "delete_user": "user.deleted",
    "create_key": "key.created",
    "import_keys": "key.created",
    "change_key": "key.changed",
    "change_credits": "key.changed",
    "rotate_key": "key.rotated",
    "revoke_key": "key.revoked",
    "create_scope": "scope.created",
    "delete_scope": "scope.deleted",
    "create_role": "role.created",
    "change_role": "role.changed",
    "delete_role": "role.deleted",
    "replace_gate_rules": "gate_rules.created",
    "create_gate_rule": "gate_rules.created",
    "replace_gate_rule": "gate_rules.changed",
    "delete_gate_rule": "gate_rules.changed",
    "create_webhook": "webhook.created",
    "change_webhook": "webhook.changed",
    "rotate_webhook": "webhook.rotated",
    "delete_webhook": "webhook.deleted",
    "report_leaks": "key.exposed",
}
each_writing = pytest.mark.parametrize("operation", WRITING, ids=named)


async def new_events(seen: list[AuditEvent]) -> list[AuditEvent]:
    """Return the events that are not among those that were seen before."""
    known = {one.id for one in seen}
    return [one for one in await events() if one.id not in known]


async def hold_caller(app: Starlette, operation: Operation, mode: str = "bearer") -> HeldKey:
    return await hold_key(app, mode=mode, scopes=scopes_of(operation), email=OWNER)


def test_no_action_is_missing() -> None:
    assert sorted(ACTIONS) == sorted(one.name for one in WRITING)


@on_sqlite
@each_writing
async def test_a_call_leaves_one_event(app: Starlette, operation: Operation) -> None:
    caller = await hold_caller(app, operation)
    target = await hold_target(app, operation, OWNER if is_own(operation) else "target@example.org")
    before = await events()

    answer = await ask(app, operation, target, key=caller, form="bearer")

    found = await new_events(before)
    assert answer.status == operation.status, answer.body
    assert [one.action for one in found] == [ACTIONS[operation.name]]
    assert (found[0].actor_kind, found[0].actor_id) == ("key", caller.access_key)
    assert found[0].actor_user_id == caller.user_id
    assert found[0].address == "127.0.0.1"
    assert found[0].request_id == answer.headers["x-request-id"]
    assert found[0].target_kind == ACTIONS[operation.name].partition(".")[0]
    if operation.parameters and found[0].target_kind != "gate_rules":  # all rules are one row
        named_in_path = {str(target.user_id), target.access_key, name_in_path(operation, target)}
        assert found[0].target_id in named_in_path


@on_sqlite
@each_writing
async def test_a_refused_call_leaves_none(app: Starlette, operation: Operation) -> None:
    caller = await hold_caller(app, operation)
    stranger = await hold_key(app, scopes=(), email=OWNER)
    target = await hold_target(app, operation, OWNER)
    before = await events()

    refused = await ask(app, operation, target, key=stranger, form="bearer")
    absent = await ask(app, operation, NOBODY, key=caller, form="bearer")

    assert refused.status == 403
    # A secret that no key has, or an owner that does not exist, is no error of a call with several.
    names_row = operation.parameters or operation.name in {"create_key", "import_keys", "report_leaks"}
    assert absent.status in ({404, 422, operation.status} if names_row else {operation.status})
    assert len(await new_events(before)) == int(not names_row)


@on_sqlite
@each_writing
async def test_a_call_whose_commit_fails_leaves_none(app: Starlette, operation: Operation) -> None:
    caller = await hold_caller(app, operation)
    target = await hold_target(app, operation, OWNER if is_own(operation) else "target@example.org")
    before = await events()
    engine = app.state.db.engine.sync_engine
    asked = []

    def refuse(_connection: Any) -> None:
        asked.append(1)
        raise OperationalError("COMMIT", {}, Exception("disk I/O error"))

    event.listen(engine, "commit", refuse)
    try:
        answer = await ask(app, operation, target, key=caller, form="bearer")
    finally:
        event.remove(engine, "commit", refuse)

    assert answer.status is not None
    assert answer.status >= 500
    assert asked
    assert await new_events(before) == []


@on_sqlite
@pytest.mark.parametrize("operation", OTHERS, ids=named)
async def test_a_call_that_changes_nothing_leaves_none(app: Starlette, operation: Operation) -> None:
    caller = await hold_caller(app, operation)
    target = await hold_target(app, operation, OWNER)
    before = await events()

    answer = await ask(app, operation, target, key=caller, form="bearer")

    assert answer.status == operation.status, answer.body
    assert await new_events(before) == []


async def test_an_event_shows_the_values_before_and_after(app: Starlette, operator: HeldKey) -> None:
    ann = (
        await call(app, "POST", "/v1/users", key=operator, body={"email": "Ann@example.com", "name": "Ann"})
    ).json
    made = await last_event()
    path = f"/v1/users/{ann['id']}"
    await call(app, "PATCH", path, key=operator, body={"name": "Ann B.", "email": "Ann@example.com"})
    changed = await last_event()
    await call(app, "PATCH", path, key=operator, body={"status": "blocked"})
    blocked = await last_event()

    assert made.target_id == str(ann["id"])
    assert made.before is None
    assert made.after is not None
    assert (made.after["email"], made.after["name"]) == ("Ann@example.com", "Ann")
    assert (changed.before, changed.after) == ({"name": "Ann"}, {"name": "Ann B."})
    assert blocked.action == "user.blocked"
    assert (blocked.before, blocked.after) == ({"status": "active"}, {"status": "blocked"})


async def test_an_event_of_a_key_shows_its_credits_and_no_secret(app: Starlette, operator: HeldKey) -> None:
    body = {
        "user_id": operator.user_id,
        "name": "n",
        "mode": "signed",
        "scopes": [],
        "credits": {"remaining": 5},
    }
    made = (await call(app, "POST", "/v1/keys", key=operator, body=body)).json
    created = await last_event()
    path = f"/v1/keys/{made['access_key']}"
    await call(app, "PATCH", path, key=operator, body={"name": "m", "credits": {"remaining": 7}})
    changed = await last_event()
    rotated = (await call(app, "POST", f"{path}/rotate", key=operator, body={"grace_s": 60})).json

    assert (created.action, created.after["credits"]["remaining"]) == ("key.created", 5)
    assert (changed.before["name"], changed.after["name"]) == ("n", "m")
    assert (changed.before["credits"]["remaining"], changed.after["credits"]["remaining"]) == (5, 7)
    assert (await last_event()).after == {"secret_version": 2}
    written = str([(one.before, one.after) for one in await events()])
    for secret in (made["secret"], rotated["secret"], operator.secret):
        assert secret not in written


async def test_a_change_of_a_role_is_one_event(app: Starlette, operator: HeldKey) -> None:
    await call(app, "POST", "/v1/roles", key=operator, body={"name": "reader", "scopes": []})
    before = await events()

    await call(
        app,
        "PATCH",
        "/v1/roles/reader",
        key=operator,
        body={"scopes": ["users:read"], "description": "Reads."},
    )

    assert [(one.action, one.before, one.after) for one in await new_events(before)] == [
        (
            "role.changed",
            {"scopes": [], "description": ""},
            {"scopes": ["users:read"], "description": "Reads."},
        )
    ]


async def test_a_replay_leaves_no_second_event(app: Starlette, operator: HeldKey) -> None:
    once: dict[str, Any] = {
        "key": operator,
        "body": {"email": "a@example.com", "name": "A"},
        "headers": [("idempotency-key", "5")],
    }
    await call(app, "POST", "/v1/users", **once)
    before = await events()

    answer = await call(app, "POST", "/v1/users", **once)

    assert answer.headers["idempotent-replayed"] == "true"
    assert await new_events(before) == []


async def test_changes_outside_of_calls_are_those_of_the_service(app: Starlette, operator: HeldKey) -> None:
    await rotate_held(app, operator, grace_s=0)

    found = await last_event()
    assert (found.actor_kind, found.actor_id, found.address, found.request_id) == ("system", None, None, None)
    assert (found.action, found.target_id) == ("key.rotated", operator.access_key)


async def test_a_change_that_is_undone_leaves_no_event(app: Starlette, operator: HeldKey) -> None:
    before = await events()
    async with app.state.db.scoped_session() as session:
        user = await user_row(operator.user_id)
        await user.update(status="blocked")
        await user.update(status="active")
        async with session.begin_nested() as savepoint:
            await user.update(name="Other")
            await savepoint.rollback()
        await session.commit()
    assert await new_events(before) == []

    async with app.state.db.scoped_session() as session:
        user = await user_row(operator.user_id)
        async with session.begin_nested():
            await user.update(name="In between")
        await user.update(name="Other")
        await session.commit()
    assert [(one.before, one.after) for one in await new_events(before)] == [
        ({"name": "Operator"}, {"name": "Other"})
    ]
