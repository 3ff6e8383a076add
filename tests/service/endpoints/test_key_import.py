"""The import of keys: what is imported, what is refused, and calls with imported credentials."""

import base64
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import ApiKey
from latchkey.service.app import create_app
from latchkey.service.authentication.wire.credentials import AccessKey, Secret, new_secret
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, user_row
from tests.conftest import on_mariadb, opened
from tests.service.audit.events import events
from tests.service.webhooks.rows import deliveries, hold_webhook

PATH = "/v1/keys/import"
FOREIGN = "sk_3ZabcdefghijklmnopqrstuvwxyzAB"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def app(settings: Settings, loggers: None) -> AsyncIterator[Starlette]:
    settings = msgspec.structs.replace(settings, imported_secrets="token:20-64", keys_per_owner=5)
    async with opened(lambda: create_app(settings), settings) as app:
        yield app


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def imported(app: Starlette, key: HeldKey, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """Import keys, whose owner is that of the calling key unless they name another one."""
    data = [
        {"name": "n", **({} if "user_external_id" in one else {"user_id": key.user_id}), **one}
        for one in items
    ]
    answer = await call(app, "POST", PATH, key=key, body={"data": data})
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = answer.json["data"]
    return found


def held(key: HeldKey, access_key: str, secret: str, mode: str = "bearer") -> HeldKey:
    return HeldKey(
        id=0, user_id=key.user_id, access_key=AccessKey(access_key), secret=Secret(secret), mode=mode
    )


@pytest.mark.parametrize(
    "credential",
    [
        pytest.param({"secret": FOREIGN}, id="in the clear"),
        pytest.param({"sha256": sha256(FOREIGN).hex()}, id="hexadecimal"),
        pytest.param({"sha256": base64.b64encode(sha256(FOREIGN)).decode()}, id="base64"),
        pytest.param({"sha256": base64.urlsafe_b64encode(sha256(FOREIGN)).decode()[:43]}, id="base64url"),
    ],
)
async def test_a_bearer_key_is_called_with_its_old_secret(
    app: Starlette, operator: HeldKey, credential: dict[str, str]
) -> None:
    fields = {
        "scopes": ["users:read"],
        "meta": {"plan": "pro"},
        "credits": {"remaining": 5},
        "external_id": "key_1",
        "limits": [{"name": "burst", "limit": 10, "window_s": 60}],
    }

    (result,) = await imported(app, operator, {**credential, **fields})

    key = held(operator, result["access_key"], FOREIGN)
    me = await call(app, "GET", "/v1/me", key=key)
    assert (result["status"], me.status) == ("imported", 200)
    assert {name: me.json["key"][name] for name in fields} == {
        **fields,
        "credits": {"remaining": 4, "refill": None},
    }
    rotated = await call(app, "POST", f"/v1/keys/{key.access_key}/rotate", key=operator, body={"grace_s": 60})
    assert rotated.json["secret"].startswith("lks_")
    assert (await call(app, "GET", "/v1/me", key=key)).status == 200


async def test_a_signing_key_keeps_its_secret(app: Starlette, operator: HeldKey) -> None:
    secret = "not-a-token: 0123456789".replace(" ", "")

    (result,) = await imported(app, operator, {"mode": "signed", "secret": secret})

    signer = held(operator, result["access_key"], secret, "signed")
    assert (await call(app, "GET", "/v1/me", key=signer)).json["key"]["access_key"] == result["access_key"]


async def test_an_import_that_is_repeated_makes_no_doubles(app: Starlette, operator: HeldKey) -> None:
    other = FOREIGN.replace("3", "4")
    first = await imported(app, operator, {"secret": FOREIGN})
    before = len(await events())

    again = await imported(
        app, operator, {"secret": FOREIGN}, {"sha256": sha256(other).hex()}, {"secret": other}
    )

    assert again[0] == {**first[0], "status": "known"}
    assert [one["status"] for one in again[1:]] == ["imported", "refused"]
    assert again[2]["detail"] == "the secret is that of another key of this import"
    assert [one.action for one in (await events())[before:]] == ["key.created"]


async def test_each_key_is_refused_on_its_own(app: Starlette, operator: HeldKey) -> None:
    blocked = await hold_key(app, email="blocked@example.com")
    async with app.state.db.scoped_session() as session:
        await (await user_row(blocked.user_id)).update(status="blocked")
        await session.commit()
    await call(app, "PATCH", f"/v1/users/{operator.user_id}", key=operator, body={"external_id": "U1"})
    secrets = iter(f"sk_{number:030}" for number in range(100))
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({}, "either secret or sha256"),
        ({"secret": next(secrets), "sha256": sha256("x").hex()}, "either secret or sha256"),
        ({"secret": "short"}, "LATCHKEY_IMPORTED_SECRETS"),
        ({"secret": new_secret("lk")[:-1] + "?"}, "LATCHKEY_IMPORTED_SECRETS"),
        ({"sha256": "0" * 63}, "neither 64 hexadecimal digits"),
        ({"mode": "signed", "sha256": sha256("x").hex()}, "needs its secret"),
        ({"mode": "signed", "secret": "short"}, "16 to 200"),
        ({"secret": next(secrets), "user_external_id": "nobody"}, "there is no such user"),
        ({"secret": next(secrets), "user_external_id": "nobody", "user_id": 1}, "either user_id or"),
        ({"secret": next(secrets), "user_id": blocked.user_id}, "the user is blocked"),
        ({"secret": next(secrets), "scopes": ["users:fly"]}, "users:fly: there is no such scope"),
        ({"secret": next(secrets), "roles": ["nobody"]}, "nobody: there is no such role"),
        ({"secret": next(secrets), "expires_at": "2020-01-01T00:00:00Z"}, "the time has passed"),
        ({"secret": next(secrets), "allowed_networks": ["10.0.0.1/8"]}, "host bits"),
        ({"secret": next(secrets), "meta": {"a": "x" * 5000}}, "at most 4096"),
        ({"secret": next(secrets), "environment": "none"}, "there is no such environment"),
        ({"secret": next(secrets), "external_id": "E1", "user_external_id": "U1"}, None),
        ({"secret": next(secrets), "external_id": "E1"}, "another key has this external_id"),
        ({"secret": next(secrets)}, None),
        ({"secret": new_secret("lk")}, None),
        ({"secret": next(secrets)}, None),
        ({"secret": next(secrets)}, "the user has 5 keys"),
    ]
    before = len(await events())

    results = await imported(app, operator, *(item for item, _ in cases))

    for (item, fault), result in zip(cases, results, strict=True):
        assert (fault or "") in (result["detail"] or ""), item
        assert result["status"] == ("imported" if fault is None else "refused"), (item, result)
    assert [one.action for one in (await events())[before:]] == ["key.created"] * 4


@on_sqlite
async def test_a_caller_imports_no_key_with_more_than_it_has(app: Starlette, operator: HeldKey) -> None:
    caller = await hold_key(app, scopes=["keys:import"], environment="test")

    async def answer(**fields: Any) -> Any:
        item = {"user_id": operator.user_id, "name": "n", "secret": FOREIGN, **fields}
        return await call(app, "POST", PATH, key=caller, body={"data": [item]})

    assert_problem(await answer(scopes=["users:read"]), 403, "scope_not_held")
    assert_problem(await answer(environment="live"), 403, "other_environment")
    assert (await answer(scopes=["keys:import"])).json["data"][0]["status"] == "imported"
    assert (await ApiKey.filter().order_by("-id").first()).environment == "test"


@on_sqlite
async def test_keys_are_told_to_webhooks_and_no_secret_is_shown(
    app: Starlette, operator: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    await hold_webhook(app, 1)
    item = {"secret": FOREIGN, "mode": "signed"}

    (result,) = await imported(app, operator, item)
    answers = [
        await call(app, "POST", PATH, key=operator, body={"data": [{**item, "name": 1}]}),
        await call(app, "GET", "/v1/me", headers=[("authorization", f"Bearer {FOREIGN}")]),
    ]

    assert [row.type for row in await deliveries(app, 1)] == ["key.created"]
    assert [one.status for one in answers] == [422, 401]
    written = str([*(one.body for one in answers), *(one.getMessage() for one in log_lines), result])
    written += str([(one.before, one.after) for one in await events()])
    assert FOREIGN not in written
    assert sha256(FOREIGN).hex() not in written
    assert f"the secret of the signing key {result['access_key']} was sent as a bearer" in written


@on_sqlite
async def test_a_leaked_secret_of_an_imported_key_is_found(app: Starlette, operator: HeldKey) -> None:
    (result,) = await imported(app, operator, {"sha256": sha256(FOREIGN).hex()})

    answer = await call(app, "POST", "/v1/leaks", key=operator, body={"data": [{"secret": FOREIGN}]})

    assert answer.json["data"][0]["access_key"] == result["access_key"]
    assert_problem(
        await call(app, "GET", "/v1/me", headers=[("authorization", f"Bearer {FOREIGN}")]), 401, "key_revoked"
    )


async def test_unknown_secrets_of_all_formats_are_refused_alike(app: Starlette, operator: HeldKey) -> None:
    await imported(app, operator, {"secret": FOREIGN})

    answers = [
        await call(app, "GET", "/v1/me", headers=[("authorization", f"Bearer {token}")])
        for token in (new_secret("lk"), FOREIGN[:-1] + "C", FOREIGN.swapcase())
    ]

    bodies = [{**one.json, "request_id": None} for one in answers]
    assert bodies == [bodies[0]] * 3
    assert_problem(answers[0], 401, "unauthenticated")
    random = {"x-request-id": "", "accept-signature": ""}
    heads = [{**one.headers, **random} for one in answers]
    assert heads == [heads[0]] * 3


@on_mariadb
async def test_a_call_costs_one_lookup_whatever_the_format_of_its_secret(
    app: Starlette, operator: HeldKey
) -> None:
    (result,) = await imported(app, operator, {"secret": FOREIGN, "scopes": ["users:read"]})
    own = await hold_key(app, scopes=["users:read"])
    foreign = held(operator, result["access_key"], FOREIGN)
    trips = {}

    for name, key in {
        "own": own,
        "imported": foreign,
        "unknown": held(operator, "", FOREIGN[:-1] + "C"),
        "own with a typo": held(operator, "", own.secret[:-1] + ("0" if own.secret[-1] != "0" else "1")),
        "short": held(operator, "", "a" * 19),
    }.items():
        with wire.listening() as commands:
            await call(app, "GET", "/v1/me", key=key)
        trips[name] = len(commands)

    assert trips == {"own": 1, "imported": 1, "unknown": 1, "own with a typo": 0, "short": 0}


@on_mariadb
async def test_many_keys_are_imported_in_few_round_trips(app: Starlette, operator: HeldKey) -> None:
    await imported(app, operator, {"secret": FOREIGN})
    many = [{"secret": f"sk_{number:030}", "external_id": f"E{number}"} for number in range(3)]

    with wire.listening() as commands:
        results = await imported(app, operator, *many)

    assert {one["status"] for one in results} == {"imported"}
    assert len(commands) <= 14, commands
