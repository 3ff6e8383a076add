"""Authorization: every operation that requires a key, with a caller in every state.

The matrix is derived from the routes; an operation without arguments here fails the suite.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete
from starlette.applications import Starlette

from latchkey.models import GateRuleSet, Role, Scope
from latchkey.models.limit import Credits
from latchkey.service.authentication.wire.credentials import new_secret
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.operation import Operation
from latchkey.service.routes import ROUTES, declared_scopes
from tests.api import HeldKey, assert_problem, call, hold_key, user_row
from tests.requests import Answer
from tests.service.webhooks.rows import hold_webhook

OWNER = "owner@example.com"
HERE = "127.0.0.0/8"  # the client address of the tests
ELSEWHERE = "192.0.2.0/24"

Outcome = tuple[int, str | None]
"""A status, and the code of a problem."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a call: a user and its key."""

    user_id: int
    access_key: str
    scopes: tuple[str, ...]
    secret: str = new_secret("lk")


NOBODY = Target(user_id=2**62, access_key="lka_0000000000000000000000", scopes=())


def nothing(target: Target) -> Any:
    return None


def own_key(target: Target) -> Any:
    # The name makes every call different: a second equal one would be a replay.
    return {"name": target.access_key, "mode": "signed", "scopes": target.scopes, "allowed_networks": [HERE]}


def imported_key(target: Target) -> dict[str, Any]:
    return {"user_id": target.user_id, "name": "n", "secret": new_secret("lk"), "scopes": target.scopes}


def role_name(target: Target) -> str:
    return f"x{target.access_key[4:].lower()}"


def scope_name(target: Target) -> str:
    return f"orders:x{target.access_key[4:].lower()}"


def gate_rule(target: Target) -> dict[str, Any]:
    return {"name": role_name(target), "paths": ["/**"], "any_key": True}


def signed_request(target: Target) -> Any:
    return {
        "method": "GET",
        "url": f"https://api.example.com/v1/me?key={target.access_key}&timestamp=1700000000",
        "headers": {"secret": "3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
    }


# The arguments with which each operation that requires a key succeeds.
BODIES: Mapping[str, Callable[[Target], Any]] = {
    "read_me": nothing,
    "create_my_key": own_key,
    "list_my_keys": nothing,
    "read_my_key": nothing,
    "change_my_key": lambda target: {"name": "changed"},
    "rotate_my_key": lambda target: {"grace_s": 60},
    "revoke_my_key": nothing,
    "create_user": lambda target: {"email": f"{target.access_key}@example.com", "name": "New"},
    "list_users": nothing,
    "read_user": nothing,
    "change_user": lambda target: {"name": "Changed"},
    "delete_user": nothing,
    "create_key": lambda target: {**own_key(target), "user_id": target.user_id},
    "list_keys": nothing,
    "read_key": nothing,
    "import_keys": lambda target: {"data": [imported_key(target)]},
    "change_key": lambda target: {"name": "changed"},
    "rotate_key": lambda target: {"grace_s": 60},
    "change_credits": lambda target: {"delta": 1},
    "revoke_key": nothing,
    "explain_signature": signed_request,
    "explain_my_signature": signed_request,
    "verify_key": lambda target: {"credential": target.access_key},
    "verify_my_key": lambda target: {"credential": target.access_key},
    "verify_keys": lambda target: {"data": [{"credential": target.access_key}]},
    "create_scope": lambda target: {"name": scope_name(target)},
    "list_scopes": nothing,
    "read_metrics": nothing,
    "delete_scope": nothing,
    "read_gate_rules": nothing,
    "replace_gate_rules": lambda target: {"data": [gate_rule(target)]},
    "create_gate_rule": lambda target: {"rule": gate_rule(target)},
    "read_gate_rule": nothing,
    "replace_gate_rule": lambda target: {"rule": gate_rule(target)},
    "delete_gate_rule": nothing,
    "create_role": lambda target: {"name": role_name(target), "scopes": []},
    "list_roles": nothing,
    "read_role": nothing,
    "change_role": lambda target: {"description": target.access_key},
    "delete_role": nothing,
    "create_webhook": lambda target: {"url": "https://example.com/", "description": target.access_key},
    "list_webhooks": nothing,
    "read_webhook": nothing,
    "change_webhook": lambda target: {"description": target.access_key},
    "rotate_webhook": lambda target: {"grace_s": 60},
    "delete_webhook": nothing,
    "ping_webhook": nothing,
    "list_deliveries": nothing,
    "redeliver_events": lambda target: {"event_id": target.access_key},
    "list_audit_events": nothing,
    "report_leaks": lambda target: {"data": [{"secret": target.secret}]},
    "read_my_usage": nothing,
    "read_key_usage": nothing,
}

# Operations that name the row in the body instead of the path.
NAMED_IN_BODY: Mapping[str, Outcome] = {"create_key": (422, "invalid_body")}

PRIVATE = [one for one in ROUTES if not one.public]
PUBLIC = [
    one for one in ROUTES if one.public and one.safe and not one.any_request
]  # the gate authenticates another request, and GitHub signs its reports


def named(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
each_private = pytest.mark.parametrize("operation", PRIVATE, ids=named)
each_form = pytest.mark.parametrize("form", ["bearer", "query", "message"])


def name_in_path(operation: Operation, target: Target) -> str:
    return scope_name(target) if "/scopes/" in operation.path else role_name(target)


def is_own(operation: Operation) -> bool:
    """Return whether an operation is limited to the caller's owner."""
    return operation.scope is None or operation.scope.startswith("me.")


def names_row(operation: Operation) -> bool:
    return bool(operation.parameters)


def scopes_of(operation: Operation) -> tuple[str, ...]:
    return () if operation.scope is None else (operation.scope,)


def expected(operation: Operation) -> dict[str, Outcome]:
    """Return the line of the matrix for one operation."""
    good: Outcome = (operation.status, None)
    absent: Outcome = (404, "not_found")
    lacking: Outcome = good if operation.scope is None else (403, "scope_missing")
    return {
        "no key": (401, "unauthenticated"),
        "revoked": (401, "key_revoked"),
        "expired": (401, "key_expired"),
        "blocked owner": (401, "owner_inactive"),
        "wrong network": (403, "network_not_allowed"),
        "no scope": lacking,
        "wrong scope": lacking,
        "right scope": good,
        "right network": good,
        "another owner": absent if is_own(operation) and names_row(operation) else good,
        "no such row": absent if names_row(operation) else NAMED_IN_BODY.get(operation.name, good),
    }


async def hold_target(app: Starlette, operation: Operation, email: str) -> Target:
    """Create the rows of an owner; the key is within the bounds of any caller here."""
    scopes = scopes_of(operation)
    own_credits = Credits(remaining=5) if operation.name == "change_credits" else None
    key = await hold_key(app, email=email, scopes=scopes, allowed_networks=[HERE], credits=own_credits)
    target = Target(user_id=key.user_id, access_key=key.access_key, scopes=scopes, secret=key.secret)
    await hold_other_rows(app, operation, target)
    return target


async def hold_other_rows(app: Starlette, operation: Operation, target: Target) -> None:
    """Create the rows that an operation needs beside users and keys."""
    if operation.name == "delete_scope":
        async with app.state.db.scoped_session() as session:
            session.add(Scope(name=scope_name(target), noun="orders"))
            await session.commit()
    if operation.name in {"read_gate_rule", "replace_gate_rule", "delete_gate_rule"}:
        async with app.state.db.scoped_session() as session:
            await session.execute(delete(GateRuleSet))
            session.add(GateRuleSet(id=1, version=1, rules=json.dumps([gate_rule(target)])))
            await session.commit()
    if operation.name in {"read_role", "change_role", "delete_role"}:
        async with app.state.db.scoped_session() as session:
            session.add(Role(name=role_name(target)))
            await session.commit()
    if "/webhooks/" in operation.path:
        await hold_webhook(app, target.user_id)


async def hold_callers(app: Starlette, operation: Operation, mode: str) -> dict[str, HeldKey | None]:
    """Create a key in each state; all but one belong to one owner."""
    right = scopes_of(operation)
    wrong = sorted(declared_scopes(ROUTES).difference(right))

    async def hold(scopes: Iterable[str] = right, email: str = OWNER, **state: Any) -> HeldKey:
        return await hold_key(app, mode=mode, scopes=scopes, email=email, **state)

    blocked = await hold(email="blocked@example.com")
    async with app.state.db.scoped_session() as session:
        await (await user_row(blocked.user_id)).update(status="blocked")
        await session.commit()
    right_one = await hold()
    return {
        "no key": None,
        "revoked": await hold(status="revoked"),
        "expired": await hold(expires_at=datetime.now(UTC) - timedelta(seconds=1)),
        "blocked owner": blocked,
        "wrong network": await hold(allowed_networks=[ELSEWHERE]),
        "no scope": await hold(scopes=()),
        "wrong scope": await hold(scopes=wrong),
        "right scope": right_one,
        "right network": await hold(allowed_networks=[HERE]),
        "another owner": right_one,
        "no such row": right_one,
    }


async def hold_rows(app: Starlette, operation: Operation, situation: str) -> Target:
    """Create the rows of a call: of the caller's owner if the operation is limited to it."""
    if situation == "no such row":
        return NOBODY
    own = is_own(operation) and situation != "another owner"
    return await hold_target(app, operation, OWNER if own else f"{situation.replace(' ', '-')}@example.org")


async def ask(
    app: Starlette, operation: Operation, target: Target, *, key: HeldKey | None, form: str, method: str = ""
) -> Answer:
    """Call an operation on some rows, with the key in the form `form`."""
    method = method or operation.method
    path = operation.path.format(
        id=target.user_id, access_key=target.access_key, name=name_in_path(operation, target)
    )
    body = BODIES[operation.name](target)
    if key is None or form != "message":
        return await call(app, method, path, key=key, body=body)
    content = None if body is None else json.dumps(body).encode()
    headers = sign_message(
        key.secret,
        key.access_key,
        app.state.latchkey.verifier.clock(),
        method=method,
        scheme="http",
        authority="testserver",
        raw_path=path,
        nonce=secrets.token_urlsafe(),
        body=content,
        content_type=None if content is None else "application/json",
    )
    return await call(app, method, path, body=content, headers=list(headers.items()))


def outcome(answer: Answer) -> Outcome:
    """Return the outcome of a call; a problem must be complete."""
    assert answer.status is not None
    if answer.status < 400:
        return answer.status, None
    assert_problem(answer, answer.status, answer.json["code"])
    return answer.status, answer.json["code"]


def test_no_operation_is_missing() -> None:
    assert sorted(BODIES) == sorted(one.name for one in PRIVATE)
    # The gate is public, and checks the credential of another request.
    others = [one.name for one in ROUTES if one not in PRIVATE and one not in PUBLIC and not one.any_request]
    assert others == ["report_github_leaks"]


@on_sqlite
@each_form
@each_private
async def test_each_caller_is_answered_as_it_should_be(
    app: Starlette, operation: Operation, form: str
) -> None:
    callers = await hold_callers(app, operation, "bearer" if form == "bearer" else "signed")

    answered = {}
    for situation, key in callers.items():
        target = await hold_rows(app, operation, situation)
        answered[situation] = outcome(await ask(app, operation, target, key=key, form=form))

    assert answered == expected(operation)


@on_sqlite
@pytest.mark.parametrize(
    "operation",
    [one for one in PRIVATE if is_own(one) and one.method == "GET" and not names_row(one)],
    ids=named,
)
async def test_the_own_routes_show_nothing_of_another_owner(app: Starlette, operation: Operation) -> None:
    caller = await hold_key(app, scopes=scopes_of(operation), email=OWNER)
    theirs = await hold_target(app, operation, "another-owner@example.org")

    answer = await ask(app, operation, theirs, key=caller, form="bearer")

    # Usage names no key; its own tests compare its sums.
    assert (caller.access_key in answer.body.decode()) is (operation.path != "/v1/me/usage")
    assert theirs.access_key not in answer.body.decode()


@on_sqlite
@each_form
@pytest.mark.parametrize("operation", [one for one in PRIVATE if one.method == "GET"], ids=named)
async def test_head_asks_for_the_same_key_as_get(app: Starlette, operation: Operation, form: str) -> None:
    callers = await hold_callers(app, operation, "bearer" if form == "bearer" else "signed")

    answered = {}
    for situation, key in callers.items():
        target = await hold_rows(app, operation, situation)
        answered[situation] = (await ask(app, operation, target, key=key, form=form, method="HEAD")).status

    assert answered == {situation: status for situation, (status, _) in expected(operation).items()}


@on_sqlite
@pytest.mark.parametrize("operation", PUBLIC, ids=named)
async def test_a_public_route_answers_without_a_key_and_looks_at_none(
    app: Starlette, operation: Operation
) -> None:
    path = operation.path.format(**operation.path_example)
    revoked = await hold_key(app, status="revoked")
    signer = await hold_key(app, mode="signed", allowed_networks=[ELSEWHERE])
    nonsense = ("authorization", "Bearer nonsense")

    plain = await call(app, "GET", path)
    others = [
        await call(app, "GET", path, key=revoked),
        await call(app, "GET", path, key=signer),
        await call(app, "GET", path, headers=[nonsense]),
        await call(app, "GET", path, headers=[("secret", "nonsense")]),
        await call(app, "GET", path, headers=[nonsense, ("signature", "nonsense")]),
        await call(app, "GET", f"{path}?key=nonsense", headers=[nonsense]),
    ]

    assert plain.status == operation.status
    assert [(one.status, one.body) for one in others] == [(plain.status, plain.body)] * len(others)
