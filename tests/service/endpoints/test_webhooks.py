"""`/v1/webhooks`: addresses that are told of events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from starlette.applications import Starlette

from latchkey.models import Webhook
from latchkey.service.app import create_app
from latchkey.service.settings import Settings, SettingsError
from latchkey.service.webhooks.rules import MOST_WEBHOOKS
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.receiver import Receiver, receiving

NEW = {"url": "https://receiver.example/events", "events": ["key.created"], "description": "Billing."}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings, webhook_networks="127.0.0.0/8", webhook_http="allow", webhook_timeout_s=2.0
    )


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def create(app: Starlette, operator: HeldKey, **body: Any) -> dict[str, Any]:
    answer = await call(app, "POST", "/v1/webhooks", key=operator, body={**NEW, **body})
    assert answer.status == 201, answer.body
    return answer.json


async def test_a_webhook_is_created_read_changed_and_deleted(app: Starlette, operator: HeldKey) -> None:
    made = await call(app, "POST", "/v1/webhooks", key=operator, body=NEW)
    shown = {name: value for name, value in made.json.items() if name != "secret"}
    target = made.headers["location"]
    read = await call(app, "GET", target, key=operator)
    listed = await call(app, "GET", "/v1/webhooks", key=operator)
    changed = await call(app, "PATCH", target, key=operator, body={"enabled": False, "events": []})
    removed = await call(app, "DELETE", target, key=operator)
    gone = [
        await call(app, method, target + end, key=operator, body=body)
        for method, end, body in [
            ("GET", "", None),
            ("PATCH", "", {}),
            ("DELETE", "", None),
            ("POST", "/ping", None),
            ("POST", "/rotate", {"grace_s": 0}),
        ]
    ]

    assert made.status == 201
    assert made.json["secret"].startswith("whsec_")
    assert {name: made.json[name] for name in NEW} == NEW
    assert (made.json["enabled"], made.json["failures"]) == (True, 0)
    assert read.json == shown
    assert listed.json == {"data": [shown], "next_cursor": None}
    assert (changed.json["enabled"], changed.json["events"]) == (False, [])
    assert changed.json["url"] == NEW["url"]
    assert removed.status == 204
    for answer in gone:
        assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"url": "https://10.0.0.1/"}, id="a private network"),
        pytest.param({"url": "https://[::ffff:192.168.0.1]/"}, id="a private network, mapped"),
        pytest.param({"url": "javascript:alert(1)"}, id="another scheme"),
        pytest.param({"url": ""}, id="no url"),
        pytest.param({"events": ["key.created", "key.created"]}, id="a type twice"),
        pytest.param({"events": ["key.eaten"]}, id="no such type"),
        pytest.param({"secret": "whsec_x"}, id="a secret of one's own"),
        pytest.param({"description": "x" * 201}, id="a long description"),
    ],
)
async def test_a_webhook_that_cannot_be_is_refused(
    app: Starlette, operator: HeldKey, body: dict[str, Any]
) -> None:
    target = f"/v1/webhooks/{(await create(app, operator))['id']}"

    assert_problem(
        await call(app, "POST", "/v1/webhooks", key=operator, body={**NEW, **body}), 422, "invalid_body"
    )
    assert_problem(await call(app, "PATCH", target, key=operator, body=body), 422, "invalid_body")


async def test_there_is_a_largest_number_of_webhooks(app: Starlette, operator: HeldKey) -> None:
    async with app.state.db.scoped_session() as session:
        for _ in range(MOST_WEBHOOKS):
            session.add(Webhook(url="https://receiver.example/", sealed=b""))
        await session.commit()

    assert_problem(await call(app, "POST", "/v1/webhooks", key=operator, body=NEW), 409, "too_many_webhooks")


async def test_scopes_are_required(app: Starlette, operator: HeldKey) -> None:
    reader = await hold_key(app, scopes=["webhooks:read"])
    target = f"/v1/webhooks/{(await create(app, operator))['id']}"

    assert (await call(app, "GET", target, key=reader)).status == 200
    for method, end, body in [
        ("POST", "", NEW),
        ("PATCH", "/1", {}),
        ("DELETE", "/1", None),
        ("POST", "/1/ping", None),
        ("POST", "/1/rotate", {"grace_s": 0}),
    ]:
        assert_problem(
            await call(app, method, f"/v1/webhooks{end}", key=reader, body=body), 403, "scope_missing"
        )


async def test_the_secret_is_stored_sealed_and_for_its_row_only(app: Starlette, operator: HeldKey) -> None:
    one, other = await create(app, operator), await create(app, operator)
    async with app.state.db.reader.connect() as connection:
        rows = (await connection.execute(select(Webhook.__table__))).all()
    secrets = app.state.latchkey.webhook_rules.secrets

    for made, row in zip((one, other), rows, strict=True):
        assert secrets.signers(row, row.created_at) == [made["secret"]]
        assert made["secret"].encode() not in bytes(row.sealed)
    with pytest.raises(Exception, match="altered"):
        secrets._open(rows[1].sealed, rows[0].id, 1)


async def test_a_ping_is_signed_and_sent_at_once(
    app: Starlette, operator: HeldKey, receiver: Receiver
) -> None:
    made = await create(app, operator, url=receiver.url, enabled=False)

    answer = await call(app, "POST", f"/v1/webhooks/{made['id']}/ping", key=operator)

    [request] = receiver.requests
    event = request.verified(made["secret"])
    assert (answer.json["delivered"], answer.json["response"], answer.json["error"]) == (True, 204, None)
    assert (event["type"], event["data"]) == ("webhook.ping", {"webhook_id": made["id"]})
    assert request.event_id.startswith("evt_")


async def test_a_ping_reports_a_failure(app: Starlette, operator: HeldKey, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    made = await create(app, operator, url=receiver.url)

    answer = await call(app, "POST", f"/v1/webhooks/{made['id']}/ping", key=operator)

    assert answer.status == 200
    assert (answer.json["delivered"], answer.json["response"]) == (False, 500)
    assert answer.json["error"] == "the receiver answered with 500"


async def test_a_ping_holds_no_connection(app: Starlette, operator: HeldKey, receiver: Receiver) -> None:
    made = await create(app, operator, url=receiver.url)
    receiver.delay_s = 0.5

    ping = asyncio.create_task(call(app, "POST", f"/v1/webhooks/{made['id']}/ping", key=operator))
    await receiver.wait_for(1)

    assert app.state.db.checked_out() == 0
    assert (await ping).json["delivered"]


async def test_both_secrets_sign_during_a_rotation(
    app: Starlette, operator: HeldKey, receiver: Receiver
) -> None:
    made = await create(app, operator, url=receiver.url)
    target = f"/v1/webhooks/{made['id']}"

    rotated = await call(app, "POST", f"{target}/rotate", key=operator, body={"grace_s": 60})
    await call(app, "POST", f"{target}/ping", key=operator)
    at_once = await call(app, "POST", f"{target}/rotate", key=operator, body={"grace_s": 0})
    await call(app, "POST", f"{target}/ping", key=operator)

    first, second = receiver.requests
    assert rotated.json["secret_version"] == 2
    assert rotated.json["old_secret_expires_at"] is not None
    for secret in (made["secret"], rotated.json["secret"]):
        assert first.verified(secret)["type"] == "webhook.ping"
    assert at_once.json["old_secret_expires_at"] is None
    assert second.verified(at_once.json["secret"])["type"] == "webhook.ping"
    for secret in (made["secret"], rotated.json["secret"]):
        with pytest.raises(Exception, match="No matching signature"):
            second.verified(secret)


async def test_a_replay_shows_no_secret(app: Starlette, operator: HeldKey) -> None:
    once: dict[str, Any] = {"key": operator, "body": NEW, "headers": [("idempotency-key", "7")]}
    first = await call(app, "POST", "/v1/webhooks", **once)
    again = await call(app, "POST", "/v1/webhooks", **once)

    assert first.json["secret"].startswith("whsec_")
    assert again.json == first.json | {"secret": None}


def test_a_wrong_block_in_the_settings_is_named(settings: Settings) -> None:
    wrong = msgspec.structs.replace(settings, webhook_networks="10.0.0.0/8,10.0.0.1/8")

    with pytest.raises(SettingsError, match="LATCHKEY_WEBHOOK_NETWORKS: block 2"):
        create_app(wrong)
