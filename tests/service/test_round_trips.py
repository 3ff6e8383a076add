"""How often each operation goes to the database and back: every command on the wire, counted exactly.

The connections are pooled already. One round trip is the authenticator's, wherever a key is looked at.
A write that succeeds ends with COMMIT, and nothing is sent when its connection goes back to the pool.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models.limit import Quota
from latchkey.service.networks import Proxies
from latchkey.service.outbox.listeners import listeners
from latchkey.service.routes import LEAK_REPORT, ROUTES, SIGNED_REQUEST, VERIFY
from tests import mysql, wire
from tests.api import HeldKey, call, hold_key
from tests.conftest import on_mariadb
from tests.service.gate.asking import ask, put_in_force
from tests.service.limits.rules import limit, limit_owner, per_day


class Trip(msgspec.Struct, frozen=True):
    """One call that succeeds, and the commands that it costs on MariaDB.

    MySQL has no INSERT … RETURNING, so what it decided about new rows is selected: one more for each table.
    """

    operation: str
    on_mariadb: int
    status: int = 200
    body: Any = None
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    tables: int = 0
    """The number of tables into which it inserts rows with generated times."""

    def body_about(self, user_id: int) -> Any:
        """Return the body; that of a new key names its owner."""
        if self.operation == "POST /v1/keys/import":
            return {"data": [{**KEY, "secret": VERIFY["credential"], "user_id": user_id}]}
        return {**self.body, "user_id": user_id} if self.operation == "POST /v1/keys" else self.body

    @property
    def on_mysql(self) -> int:
        return self.on_mariadb + self.tables

    @property
    def commands(self) -> int:
        """What it costs on the server of the suite."""
        return self.on_mysql if mysql.is_chosen() else self.on_mariadb


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "round-trips.md"
USER = {"email": "ann@example.com", "name": "Ann"}
KEY = {"name": "n", "scopes": ["users:read"]}
RULE = {"name": "all", "paths": ["/**"], "any_key": True}

# As for `/v1/keys`.
MINE = {
    "create a key of mine": Trip("POST /v1/me/keys", 8, 201, {**KEY, "mode": "signed"}, tables=1),
    "list my keys": Trip("GET /v1/me/keys", 2),
    "read a key of mine": Trip("GET /v1/me/keys/{access_key}", 2),
    "change a key of mine": Trip("PATCH /v1/me/keys/{access_key}", 7, 200, {"name": "x"}),
    "read my usage": Trip("GET /v1/me/usage", 2),
    "rotate a key of mine": Trip("POST /v1/me/keys/{access_key}/rotate", 10, 200, {"grace_s": 60}),
    "revoke a key of mine": Trip("DELETE /v1/me/keys/{access_key}", 7, 204),
}

TRIPS = {
    **MINE,
    "home": Trip("GET /", 0),
    "health": Trip("GET /healthz", 0),
    "liveness": Trip("GET /livez", 0),
    # reads a table
    "readiness": Trip("GET /readyz", 1),
    "description": Trip("GET /openapi.json", 0),
    # key; the count of keys that expire soon, the oldest event
    "metrics": Trip("GET /metrics", 3),
    "problem": Trip("GET /problems/{code}", 0),
    # key and owner with one join, from which the answer is created
    "me": Trip("GET /v1/me", 1),
    # key; INSERT … RETURNING, INSERT of the audit event, COMMIT
    "create a user": Trip("POST /v1/users", 4, 201, USER, tables=1),
    # key; INSERT of the claim, INSERT … RETURNING of the user, UPDATE with the answer, INSERT of the event, COMMIT
    "create a user once": Trip("POST /v1/users", 6, 201, USER, headers=(("idempotency-key", "5"),), tables=1),
    # as without the header, plus two: INSERT of the claim, UPDATE with the answer
    "change nothing of a user once": Trip(
        "PATCH /v1/users/{id}", 6, 200, {}, headers=(("idempotency-key", "5"),)
    ),
    # key; one row more than the page, to detect a next page
    "list users": Trip("GET /v1/users", 2),
    "filter users": Trip("GET /v1/users", 2, query="?email=partner@example.com&status=active&limit=1"),
    "read a user": Trip("GET /v1/users/{id}", 2),
    # Operations that change keys, or the owner of keys, first lock the caller's key and owner: one more SELECT.
    "change a user": Trip("PATCH /v1/users/{id}", 7, 200, {"name": "x"}),
    # key; SELECT … FOR UPDATE, COMMIT, which releases the lock
    "change nothing of a user": Trip("PATCH /v1/users/{id}", 4, 200, {}),
    # key; SELECT … FOR UPDATE, UPDATE of the user, UPDATE of its keys, SELECT of updated_at, INSERT of the event,
    # COMMIT
    "delete a user": Trip("DELETE /v1/users/{id}", 8, 204),
    # plus the count of the owner's keys
    "create a bearer key": Trip("POST /v1/keys", 8, 201, {**KEY, "mode": "bearer"}, tables=1),
    "create a key that signs": Trip("POST /v1/keys", 8, 201, {**KEY, "mode": "signed"}, tables=1),
    "list keys": Trip("GET /v1/keys", 2),
    "filter keys": Trip("GET /v1/keys", 2, query="?status=active&limit=1"),
    "read a key": Trip("GET /v1/keys/{access_key}", 2),
    # key; the key whose usage is read, its counts
    "read the usage of a key": Trip("GET /v1/keys/{access_key}/usage", 3),
    # as for a user
    "change a key": Trip("PATCH /v1/keys/{access_key}", 7, 200, {"name": "x"}),
    "change nothing of a key": Trip("PATCH /v1/keys/{access_key}", 4, 200, {}),
    # key; SELECT … FOR UPDATE of a key that has no credits
    "add credits to a key without any": Trip("POST /v1/keys/{access_key}/credits", 4, 409, {"delta": 5}),
    # key; SELECT … FOR UPDATE, DELETE of what ended, UPDATE of the old secret, INSERT … RETURNING of the new one,
    # UPDATE of the key, SELECT of updated_at, INSERT of the event, COMMIT
    "rotate a key": Trip("POST /v1/keys/{access_key}/rotate", 10, 200, {"grace_s": 60}),
    # without the UPDATE of the old secret, which ends at once
    "rotate a key without grace": Trip("POST /v1/keys/{access_key}/rotate", 9, 200, {"grace_s": 0}),
    # key; SELECT … FOR UPDATE, UPDATE, SELECT of updated_at, INSERT of the event, COMMIT
    "revoke a key": Trip("DELETE /v1/keys/{access_key}", 7, 204),
    # key; the caller, keys with the secret, owner, keys of the owner, INSERT … RETURNING of the key, INSERT of the secret,
    # INSERT of the event, COMMIT
    "import a key": Trip("POST /v1/keys/import", 9, 200, tables=1),
    # key; the key that is verified
    "verify a key": Trip("POST /v1/keys/verify", 2, 200, VERIFY),
    "verify a key of a batch": Trip("POST /v1/keys/verify-batch", 2, 200, {"data": [VERIFY]}),
    "verify a key of one's own": Trip("POST /v1/me/keys/verify", 2, 200, VERIFY),
    # as for a user that is created, after the lock of the caller
    "register a scope": Trip("POST /v1/scopes", 5, 201, {"name": "orders:read"}, tables=1),
    "list scopes": Trip("GET /v1/scopes", 2),
    # key; the caller, the scope, COMMIT
    "remove no scope": Trip("DELETE /v1/scopes/{name}", 4, 404),
    "read the rules of the gate": Trip("GET /v1/gate/rules", 2),
    # key; the caller, the row of the rules, its INSERT, COMMIT
    "store the first rules of the gate": Trip("PUT /v1/gate/rules", 6, 200, {"data": []}, tables=1),
    "add a first rule to the gate": Trip("POST /v1/gate/rules", 6, 201, {"rule": RULE}, tables=1),
    "read no rule of the gate": Trip("GET /v1/gate/rules/{name}", 2, 404),
    "replace no rule of the gate": Trip("PUT /v1/gate/rules/{name}", 4, 404, {"rule": RULE}),
    "remove no rule of the gate": Trip("DELETE /v1/gate/rules/{name}", 4, 404),
    # as for a scope; without scopes, none is looked up
    "create a role": Trip("POST /v1/roles", 5, 201, {"name": "auditor", "scopes": []}, tables=1),
    "list roles": Trip("GET /v1/roles", 2),
    "read no role": Trip("GET /v1/roles/{name}", 2, 404),
    # key; the caller, the role, COMMIT
    "change no role": Trip("PATCH /v1/roles/{name}", 4, 404, {}),
    "remove no role": Trip("DELETE /v1/roles/{name}", 4, 404),
    # key; the caller, the count, INSERT … RETURNING, UPDATE with the sealed secret, SELECT of updated_at,
    # INSERT of the event, COMMIT
    "create a webhook": Trip("POST /v1/webhooks", 8, 201, {"url": "https://example.com/"}, tables=1),
    "list webhooks": Trip("GET /v1/webhooks", 2),
    "read no webhook": Trip("GET /v1/webhooks/{id}", 2, 404),
    # key; the caller, the webhook, COMMIT
    "change no webhook": Trip("PATCH /v1/webhooks/{id}", 4, 404, {}),
    "rotate no webhook": Trip("POST /v1/webhooks/{id}/rotate", 4, 404, {"grace_s": 0}),
    "delete no webhook": Trip("DELETE /v1/webhooks/{id}", 4, 404),
    "list no deliveries": Trip("GET /v1/webhooks/{id}/deliveries", 2, 404),
    # key; the caller, the webhook, COMMIT
    "redeliver nothing": Trip("POST /v1/webhooks/{id}/redeliver", 4, 404, {}),
    # key; the webhook
    "ping no webhook": Trip("POST /v1/webhooks/{id}/ping", 2, 404),
    # key; the caller, keys with the secret, COMMIT
    "report a secret of no key": Trip("POST /v1/leaks", 4, 200, LEAK_REPORT),
    "report a text that is no secret": Trip("POST /v1/leaks", 1, 200, {"data": [{"secret": "password"}]}),
    # the public keys of GitHub are not set
    "report to a path that does not exist": Trip("POST /v1/leaks/github", 0, 404, []),
    # as for users
    "list audit events": Trip("GET /v1/audit", 2),
    "filter audit events": Trip("GET /v1/audit", 2, query="?actor=system&limit=1"),
    # key; the signing key, its nonce if it has one, COMMIT
    "explain a signature": Trip("POST /v1/signatures/explain", 3, 200, SIGNED_REQUEST),
    "explain a signature of one's own": Trip("POST /v1/me/signatures/explain", 3, 200, SIGNED_REQUEST),
}


# the key of the original request
ASKED = {
    "ask the gate": Trip("GET /v1/gate", 1, 204),
    "ask the gate for nginx": Trip("GET /v1/gate/nginx", 1, 204),
    "ask the gate for Envoy": Trip("GET /v1/gate/envoy", 1, 200),
}
DOCUMENTED = {**TRIPS, **ASKED}
ANY_KEY = b'[[rules]]\npaths = ["/**"]\nany_key = true'


def test_no_operation_is_missing() -> None:
    assert {trip.operation for trip in DOCUMENTED.values()} == {f"{one.method} {one.path}" for one in ROUTES}


def test_the_documentation_has_them_all() -> None:
    rows = [
        f"| {name} | `{trip.operation}` | {trip.on_mariadb} | {trip.on_mysql} |"
        for name, trip in DOCUMENTED.items()
    ]
    page = DOCUMENTATION.read_text().splitlines()

    assert [line for line in page if line.startswith("| ") and "`" in line] == rows


@pytest.fixture(params=["bearer", "signed"])
async def caller(
    app: Starlette, request: pytest.FixtureRequest, operator: HeldKey, signer: HeldKey
) -> HeldKey:
    """A key of each mode; the pools have their connections."""
    await call(app, "POST", "/v1/users", key=operator, body={"email": "first@example.com", "name": "First"})
    # as a worker does every few seconds: an event that nobody listens to is not written
    await listeners.read(app.state.db.reader)
    return operator if request.param == "bearer" else signer


@on_mariadb
@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
async def test_an_operation_costs_so_many_commands(app: Starlette, caller: HeldKey, trip: Trip) -> None:
    partner = await hold_key(app, email="partner@example.com", scopes=["users:read"])
    method, _, path = trip.operation.partition(" ")
    key = await hold_key(app, scopes=["users:read"]) if path.startswith("/v1/me/") else partner
    target = (
        path.format(id=partner.user_id, access_key=key.access_key, code="conflict", name="orders:read")
        + trip.query
    )
    body = trip.body_about(partner.user_id)

    with wire.listening() as commands:
        answer = await call(app, method, target, key=caller, body=body, headers=trip.headers)

    # the nonce, or the signature, of an unsafe call that needs a key
    is_private = (method, path) != ("POST", "/v1/leaks/github")
    reservation = int(caller.mode == "signed" and method != "GET" and is_private)
    assert answer.status == trip.status, answer.body
    assert len(commands) == trip.commands + reservation, commands


@on_mariadb
@pytest.mark.parametrize("trip", ASKED.values(), ids=ASKED)
async def test_a_decision_of_the_gate_costs_one_command(
    app: Starlette, operator: HeldKey, trip: Trip
) -> None:
    app.state.latchkey.verifier.proxies = Proxies.from_text("127.0.0.0/8")
    put_in_force(app, ANY_KEY)
    gate = trip.operation.partition(" ")[2]
    await ask(app, "GET", "/orders/7", key=operator, gate=gate)

    for method in ("GET", "DELETE"):
        with wire.listening() as commands:
            answer = await ask(app, method, "/orders/7", key=operator, gate=gate)

        assert answer.status == trip.status, answer.body
        assert len(commands) == trip.commands, commands


@on_mariadb
async def test_a_replay_costs_as_much_as_the_call(app: Starlette, caller: HeldKey) -> None:
    once: dict[str, Any] = {"key": caller, "body": USER, "headers": [("idempotency-key", "5")]}
    await call(app, "POST", "/v1/users", **once)

    with wire.listening() as commands:
        # As after a lost answer: a call in another second, so that its signature differs.
        app.state.latchkey.verifier.clock = lambda clock=app.state.latchkey.verifier.clock: clock() + 1
        answer = await call(app, "POST", "/v1/users", **once)

    # key; INSERT of the claim, which exists, ROLLBACK, that of the pool after an error, SELECT of the answer
    assert answer.headers["idempotent-replayed"] == "true"
    assert len(commands) == 5 + int(caller.mode == "signed"), commands


LIMIT = limit("burst", 1000)
LIMITED = {
    # key; the counter, read and written
    "a key": ((LIMIT,), None, (), 3),
    "a key with several limits and a quota": ((LIMIT, limit("other", 1000)), per_day(1000), (), 3),
    "an owner": ((), None, (LIMIT,), 3),
    # both counters are read by one query and written by one
    "a key and its owner": ((LIMIT,), per_day(1000), (LIMIT,), 3),
    # key; the counter, which is not written
    "a key at its limit": ((limit("burst", 1),), None, (), 2),
    "nobody": ((), None, (), 1),
}


@on_mariadb
@pytest.mark.parametrize("limits, quota, owners, commands_each", LIMITED.values(), ids=LIMITED)
async def test_a_limited_read_costs_two_commands_more(
    app: Starlette,
    operator: HeldKey,
    limits: tuple[Any, ...],
    quota: Quota | None,
    owners: tuple[Any, ...],
    commands_each: int,
) -> None:
    key = await hold_key(app, scopes=[], email="limited@example.com", limits=limits, quota=quota)
    await limit_owner(app, key.user_id, *owners)
    await call(app, "GET", "/v1/me", key=key)

    with wire.listening() as commands:
        await call(app, "GET", "/v1/me", key=key)

    assert len(commands) == commands_each, commands


@on_mariadb
async def test_the_first_limited_read_costs_no_more(app: Starlette, operator: HeldKey) -> None:
    await call(app, "GET", "/v1/me", key=operator)
    key = await hold_key(app, scopes=[], limits=[LIMIT])

    with wire.listening() as commands:
        await call(app, "GET", "/v1/me", key=key)

    assert len(commands) == 3, commands


@pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/problems/conflict", "/nothing"])
async def test_a_request_without_sql_takes_no_connection(app: Starlette, path: str) -> None:
    with wire.listening() as commands:
        await call(app, "GET", path)

    assert commands == []
    assert app.state.db.engine.pool.checkedin() == app.state.db.reader.pool.checkedin() == 0
