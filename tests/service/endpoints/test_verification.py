"""`/v1/keys/verify`: another service learns who is calling it."""

import asyncio
import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.service.authentication.wire.credentials import Secret, new_secret
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, stored
from tests.conftest import on_mariadb
from tests.service.limits.rules import limit, per_day

VERIFY = "/v1/keys/verify"
MINE = "/v1/me/keys/verify"
BODY = b'{"sku":"A1"}'
HOST = "orders.example.com"
NONCE = "n0nce-0123456789abcdef"
NOTHING: dict[str, Any] = {
    "access_key": None,
    "name": None,
    "owner": None,
    "environment": None,
    "external_id": None,
    "meta": {},
    "scopes": [],
    "roles": [],
    "expires_at": None,
    "limits": [],
    "credits": None,
}


@pytest.fixture
async def service(app: Starlette) -> HeldKey:
    """Return the key with which another service asks."""
    return await hold_key(app, email="orders@example.com", scopes=["keys:verify"])


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    return await hold_key(app, email="partner@example.com", scopes=["users:read"])


@pytest.fixture
async def partner_signer(app: Starlette) -> HeldKey:
    return await hold_key(app, email="partner@example.com", scopes=["users:read"], mode="signed")


async def verify(app: Starlette, service: HeldKey, path: str = VERIFY, **body: Any) -> Any:
    answer = await call(app, "POST", path, key=service, body=body)
    assert answer.status == 200, answer.body
    return answer.json


def signed(
    app: Starlette, key: HeldKey, form: str, *, secret: str | None = None, nonce: str = NONCE
) -> dict[str, Any]:
    """Return a signed POST as the other service received it."""
    now, holder = app.state.latchkey.verifier.clock(), Secret(secret or key.secret)
    digest = hashlib.sha256(BODY).hexdigest()
    if form == "query":
        query, mac = sign_query(
            holder,
            "a=1",
            key.access_key,
            now,
            method="POST",
            path="/orders",
            body=BODY,
            nonce=nonce,
        )
        headers = {"Secret": mac}
    else:
        query = "a=1"
        headers = sign_message(
            holder, key.access_key, now, method="POST", scheme="https", authority=HOST, raw_path="/orders",
            query_string=query, nonce=nonce, body=BODY, content_type="application/json",
        )  # fmt: skip
    return {
        "method": "POST",
        "url": f"https://{HOST}/orders?{query}",
        "headers": headers,
        "content_sha256": digest,
    }


FORMS = pytest.mark.parametrize("form", ["query", "message"])


async def test_a_valid_key_is_answered_with_its_owner(
    app: Starlette, service: HeldKey, partner: HeldKey
) -> None:
    found = await verify(app, service, credential=partner.secret, scopes=["users:read"])

    assert found == {
        "valid": True,
        "code": "valid",
        "detail": None,
        "retry_after_s": None,
        "access_key": partner.access_key,
        "name": "bearer key",
        "owner": {
            "id": partner.user_id,
            "name": "Operator",
            "status": "active",
            "external_id": None,
            "meta": {},
        },
        "environment": "live",
        "external_id": None,
        "meta": {},
        "scopes": ["users:read"],
        "roles": [],
        "expires_at": None,
        "limits": [],
        "credits": None,
    }


@FORMS
async def test_a_signed_request_is_verified_once(
    app: Starlette, service: HeldKey, partner_signer: HeldKey, form: str
) -> None:
    sent = signed(app, partner_signer, form)

    tried = await verify(app, service, request=sent, charge=False)
    first = await verify(app, service, request=sent)
    second = await verify(app, service, request=sent)
    tried_again = await verify(app, service, request=sent, charge=False)

    assert (tried["code"], first["code"], second["code"]) == ("valid", "valid", "replayed")
    assert tried_again["code"] == "replayed"
    assert first["access_key"] == second["access_key"] == partner_signer.access_key


@FORMS
@pytest.mark.parametrize(
    "change, code",
    [
        ({"method": "PUT"}, "unauthenticated"),
        ({"url": f"https://{HOST}/orders?a=2"}, "unauthenticated"),
        ({"content_sha256": hashlib.sha256(b"x").hexdigest()}, "digest_mismatch"),
        ({"headers": {}}, "unauthenticated"),
    ],
    ids=["method", "url", "body", "headers"],
)
async def test_another_request_than_was_signed_is_not_valid(
    app: Starlette, service: HeldKey, partner_signer: HeldKey, form: str, change: dict[str, Any], code: str
) -> None:
    found = await verify(app, service, request={**signed(app, partner_signer, form), **change})

    assert (found["valid"], found["code"]) == (False, code)
    if code == "unauthenticated":
        assert {name: found[name] for name in NOTHING} == NOTHING


async def test_a_refusal_before_the_proof_shows_nothing(
    app: Starlette, service: HeldKey, partner: HeldKey, partner_signer: HeldKey
) -> None:
    unknown = await verify(app, service, credential=new_secret("lk"))
    exposed = await verify(app, service, credential=partner_signer.secret)
    forged = await verify(app, service, request=signed(app, partner_signer, "query", secret=new_secret("lk")))
    shape = await verify(app, service, credential=partner.access_key)
    garbage = await verify(app, service, credential="\u20ac\n\x00")

    assert unknown == exposed == forged == {
        "valid": False, "code": "unauthenticated", "detail": "Not authenticated.", "retry_after_s": None, **NOTHING
    }  # fmt: skip
    assert "access key" in shape["detail"]
    assert garbage["code"] == "unauthenticated"
    assert partner.access_key not in str(shape)


@pytest.mark.parametrize(
    "state, body, code",
    [
        ({"status": "revoked"}, {}, "key_revoked"),
        ({"expires_at": datetime.now(UTC) - timedelta(days=1)}, {}, "key_expired"),
        ({}, {"scopes": ["users:read", "keys:read"]}, "scope_missing"),
        ({"allowed_networks": ["192.0.2.0/24"]}, {}, "network_not_allowed"),
        ({"allowed_networks": ["192.0.2.0/24"]}, {"client": "198.51.100.1"}, "network_not_allowed"),
        ({"allowed_networks": ["192.0.2.0/24"]}, {"client": "192.0.2.7"}, "valid"),
        ({"allowed_networks": ["192.0.2.0/24"]}, {"client": "::ffff:192.0.2.7"}, "valid"),
        ({"scopes": ["users:*"]}, {"scopes": ["users:read", "users:write"]}, "valid"),
    ],
)
async def test_a_proved_key_is_named_even_when_it_is_refused(
    app: Starlette, service: HeldKey, state: dict[str, Any], body: dict[str, Any], code: str
) -> None:
    key = await hold_key(app, **{"email": "partner@example.com", "scopes": ["users:read"], **state})

    found = await verify(app, service, credential=key.secret, **body)

    assert (found["code"], found["valid"]) == (code, code == "valid")
    assert found["access_key"] == key.access_key


async def test_a_blocked_owner_is_named(app: Starlette, service: HeldKey, partner: HeldKey) -> None:
    async with app.state.db.scoped_session() as session:
        await (await User.filter_by(id=partner.user_id).one()).update(status="blocked")
        await session.commit()

    found = await verify(app, service, credential=partner.secret)

    assert (found["code"], found["owner"]["status"]) == ("owner_inactive", "blocked")


async def test_a_verification_is_charged_whole_or_not_at_all(app: Starlette, service: HeldKey) -> None:
    key = await hold_key(
        app, email="p@example.com", scopes=[], limits=[limit("burst", 10)], quota=per_day(100)
    )

    looked = await verify(app, service, credential=key.secret, cost=4, charge=False)
    first = await verify(app, service, credential=key.secret, cost=4)
    missing = await verify(app, service, credential=key.secret, cost=4, scopes=["users:read"])
    second = await verify(app, service, credential=key.secret, cost=7)
    outlook = await verify(app, service, credential=key.secret, cost=7, charge=False)
    third = await verify(app, service, credential=key.secret, cost=6)
    above = await verify(app, service, credential=key.secret, cost=11)

    def rest(found: Any) -> list[tuple[str, int]]:
        return [(one["name"], one["remaining"]) for one in found["limits"]]

    assert (looked["code"], rest(looked)) == ("valid", [("burst", 10), ("quota", 100)])
    assert (first["code"], rest(first)) == ("valid", [("burst", 6), ("quota", 96)])
    assert missing["code"] == "scope_missing"
    assert (second["code"], rest(second)) == ("rate_limited", [("burst", 6), ("quota", 96)])
    assert second["retry_after_s"] > 0
    assert (outlook["code"], rest(outlook)) == ("rate_limited", [("burst", 6), ("quota", 96)])
    assert (third["code"], rest(third)) == ("valid", [("burst", 0), ("quota", 90)])
    assert above["code"] == "cost_above_limit"


async def test_a_call_and_a_verification_share_the_counters(app: Starlette, service: HeldKey) -> None:
    key = await hold_key(app, email="p@example.com", scopes=[], limits=[limit("burst", 2)])

    codes = [
        (await call(app, "GET", "/v1/me", key=key)).status,
        (await verify(app, service, credential=key.secret))["code"],
        (await verify(app, service, credential=key.secret))["code"],
        (await call(app, "GET", "/v1/me", key=key)).status,
    ]

    assert codes == [200, "valid", "rate_limited", 429]


async def test_many_at_once_are_charged_exactly(app: Starlette, service: HeldKey) -> None:
    key = await hold_key(app, email="p@example.com", scopes=[], limits=[limit("burst", 7, 3600)])

    found = await asyncio.gather(*(verify(app, service, credential=key.secret) for _ in range(20)))

    assert Counter(one["code"] for one in found) == {"valid": 7, "rate_limited": 13}


async def test_a_batch_is_answered_in_its_order(app: Starlette, service: HeldKey, partner: HeldKey) -> None:
    key = await hold_key(app, email="p@example.com", scopes=[], limits=[limit("burst", 2)])
    body = {
        "data": [{"credential": secret} for secret in (partner.secret, *[key.secret] * 3, new_secret("lk"))]
    }

    answer = await call(app, "POST", f"{VERIFY}-batch", key=service, body=body)

    assert [one["code"] for one in answer.json["data"]] == [
        "valid", "valid", "valid", "rate_limited", "unauthenticated"
    ]  # fmt: skip
    too_many = {"data": [{"credential": "x"}] * 101}
    assert_problem(
        await call(app, "POST", f"{VERIFY}-batch", key=service, body=too_many), 422, "invalid_body"
    )


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_one_owner_learns_nothing_of_other_keys(app: Starlette, mode: str) -> None:
    """Whatever the state of the other key, and whatever is sent of it."""
    mine = await hold_key(app, email="me@example.com", scopes=["me.keys:verify"])
    own = await hold_key(app, email="me@example.com", mode=mode, scopes=[])
    foreign = await hold_key(app, email="other@example.com", mode=mode, scopes=[])
    revoked = await hold_key(app, email="other@example.com", mode=mode, scopes=[], status="revoked")
    unknown = HeldKey(id=0, user_id=0, access_key=foreign.access_key, secret=new_secret("lk"), mode=mode)

    def asked(key: HeldKey) -> dict[str, Any]:
        return {"credential": key.secret} if mode == "bearer" else {"request": signed(app, key, "query")}

    answers = []
    for key in (foreign, revoked, unknown):
        with wire.listening() as commands:
            answers.append((await verify(app, mine, MINE, **asked(key)), len(commands)))

    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0]["code"] == "unauthenticated"
    assert (await verify(app, mine, MINE, **asked(own)))["access_key"] == own.access_key


async def test_the_scope_is_needed(app: Starlette, partner: HeldKey) -> None:
    for path in (VERIFY, MINE, f"{VERIFY}-batch"):
        assert_problem(await call(app, "POST", path, key=partner, body={}), 403, "scope_missing")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"credential": "x", "request": {"method": "GET", "url": "http://h/", "headers": {}}},
        {"credential": "x", "cost": -1},
        {"credential": "x", "client": "nowhere"},
        {"credential": "x" * 513},
        {"credential": "x", "tags": ["a b"]},
        {"request": {"method": "GET", "url": "nowhere", "headers": {}}},
        {"request": {"method": "GET", "url": "http://h/", "headers": {}, "content_sha256": "A" * 64}},
    ],
)
async def test_a_wrong_body_is_refused(app: Starlette, service: HeldKey, body: dict[str, Any]) -> None:
    assert_problem(await call(app, "POST", VERIFY, key=service, body=body), 422, "invalid_body")


async def test_failures_of_others_do_not_refuse_the_service(app: Starlette, service: HeldKey) -> None:
    app.state.latchkey.verifier.failures.limit = 2

    for _ in range(5):
        await verify(app, service, credential=new_secret("lk"))

    assert (await call(app, "POST", VERIFY, key=service, body={"credential": "x"})).status == 200


@pytest.mark.parametrize("mode", ["bearer", "query", "message"])
async def test_without_charge_nothing_is_written(app: Starlette, service: HeldKey, mode: str) -> None:
    key = await hold_key(
        app,
        email="p@example.com",
        scopes=[],
        mode="bearer" if mode == "bearer" else "signed",
        limits=[limit("burst", 2)],
    )
    before = await stored(app.state.db.engine)

    asked = {"credential": key.secret} if mode == "bearer" else {"request": signed(app, key, mode)}
    found = await verify(app, service, **asked, charge=False)

    assert found["code"] == "valid"
    assert await stored(app.state.db.engine) == before


@on_mariadb
async def test_it_costs_one_round_trip_beside_the_key_of_the_caller(
    app: Starlette, service: HeldKey, partner: HeldKey
) -> None:
    await verify(app, service, credential=partner.secret)
    with wire.listening() as commands:
        await verify(app, service, credential=partner.secret)

    assert len(commands) == 2, commands


async def test_the_log_has_the_tags_and_no_secret(
    app: Starlette, service: HeldKey, partner: HeldKey, log_lines: list[Any]
) -> None:
    await verify(app, service, credential=partner.secret, tags=["orders", "eu-1"])

    lines = [line.getMessage() for line in log_lines]
    assert f"verified: valid; key: {partner.access_key}, tags: orders, eu-1" in lines
    assert not [line for line in lines if partner.secret in line]


async def test_external_ids_and_metadata_are_answered(
    app: Starlette, operator: HeldKey, service: HeldKey
) -> None:
    user = {"email": "ext@example.com", "name": "E", "external_id": "crm-7", "meta": {"plan": "gold"}}
    owner = (await call(app, "POST", "/v1/users", key=operator, body=user)).json
    body = {
        "user_id": owner["id"],
        "name": "n",
        "mode": "bearer",
        "scopes": [],
        "external_id": "k-1",
        "meta": {"n": [1]},
    }
    key = (await call(app, "POST", "/v1/keys", key=operator, body=body)).json

    found = await verify(app, service, credential=key["secret"])

    assert (found["external_id"], found["meta"]) == ("k-1", {"n": [1]})
    assert (found["owner"]["external_id"], found["owner"]["meta"]) == ("crm-7", {"plan": "gold"})
