"""Reports of leaked secrets: what happens to the keys, and what is told to whom."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import ApiKey
from latchkey.service.app import create_app
from latchkey.service.authentication.wire.credentials import new_secret
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key, rotate_held
from tests.conftest import on_mariadb, opened
from tests.service.audit.events import events
from tests.service.webhooks.rows import deliveries, hold_webhook

PATH = "/v1/leaks"
URL = "https://paste.example/raw/1"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NOTHING = {"label": "false_positive", "access_key": None, "works_until": None}


def typo_in(secret: str) -> str:
    return secret[:-1] + ("0" if secret[-1] != "0" else "1")


async def report(app: Starlette, key: HeldKey, *secrets: str, url: str | None = URL) -> Any:
    answer = await call(
        app, "POST", PATH, key=key, body={"data": [{"secret": one, "url": url} for one in secrets]}
    )
    assert answer.status == 200, answer.body
    return answer.json["data"]


async def told(app: Starlette) -> list[tuple[str, Any]]:
    """Return the types and the bodies of the events for the first webhook."""
    bodies = [msgspec.json.decode(bytes(row.payload)) for row in await deliveries(app, 1)]
    return [(one["type"], one["data"]) for one in bodies]


@pytest.fixture
async def scanner(app: Starlette) -> HeldKey:
    return await hold_key(app, scopes=["leaks:write"], email="scanner@example.com")


@pytest.mark.parametrize("mode", ["bearer", "signed"])
async def test_a_leaked_key_is_revoked_and_told(app: Starlette, scanner: HeldKey, mode: str) -> None:
    leaked = await hold_key(app, mode=mode)
    await hold_webhook(app, 1)

    found = await report(app, scanner, leaked.secret, new_secret("lk"))

    assert found == [
        {"label": "true_positive", "access_key": leaked.access_key, "works_until": None},
        NOTHING,
    ]
    assert_problem(await call(app, "GET", "/v1/me", key=leaked), 401, "key_revoked")
    exposed = {"secret_version": 1, "source": "report", "url": URL}
    (exposure, data), (revocation, _) = await told(app)
    assert (exposure, revocation) == ("key.exposed", "key.revoked")
    assert (data["access_key"], data["status"], data["exposed"]) == (leaked.access_key, "revoked", exposed)
    (event,) = [one for one in await events() if one.actor_id == scanner.access_key]
    assert (event.action, event.target_id) == ("key.exposed", leaked.access_key)
    assert (event.before, event.after) == ({"status": "active"}, {"status": "revoked", "exposed": exposed})


async def test_a_report_that_is_repeated_changes_and_tells_nothing(app: Starlette, scanner: HeldKey) -> None:
    leaked = await hold_key(app)
    await hold_webhook(app, 1)
    first = await report(app, scanner, leaked.secret, leaked.secret)

    again = await report(app, scanner, leaked.secret)

    assert first == [*again, *again]
    assert again[0]["label"] == "true_positive"
    assert len(await told(app)) == 2


async def test_reports_at_once_are_one_event(app: Starlette, scanner: HeldKey) -> None:
    leaked = await hold_key(app)
    await hold_webhook(app, 1)

    async with asyncio.TaskGroup() as tasks:
        reports = [tasks.create_task(report(app, scanner, leaked.secret)) for _ in range(4)]

    assert [one.result()[0]["access_key"] for one in reports] == [leaked.access_key] * 4
    assert [kind for kind, _ in await told(app)] == ["key.exposed", "key.revoked"]


async def test_the_replaced_secret_of_a_key_ends_without_the_key(app: Starlette, scanner: HeldKey) -> None:
    old = await hold_key(app)
    new = await rotate_held(app, old, grace_s=3600)
    await hold_webhook(app, 1)

    found = await report(app, scanner, old.secret)

    assert found[0] == {"label": "true_positive", "access_key": old.access_key, "works_until": None}
    assert_problem(await call(app, "GET", "/v1/me", key=old), 401, "unauthenticated")
    assert (await call(app, "GET", "/v1/me", key=new)).status == 200
    assert [(kind, data["exposed"]["secret_version"]) for kind, data in await told(app)] == [
        ("key.exposed", 1)
    ]
    assert (await report(app, scanner, old.secret))[0]["access_key"] == old.access_key
    assert len(await told(app)) == 1


class TestCache:
    @pytest.fixture
    async def app(self, settings: Settings, loggers: None) -> AsyncIterator[Starlette]:
        settings = msgspec.structs.replace(settings, key_cache_ttl_s=60)
        async with opened(lambda: create_app(settings), settings) as app:
            yield app

    @on_sqlite
    async def test_a_cached_key_is_refused_at_once(self, app: Starlette, scanner: HeldKey) -> None:
        old, other = await hold_key(app), await hold_key(app)
        new = await rotate_held(app, old, grace_s=3600)
        for key in (old, new, other):
            assert (await call(app, "GET", "/v1/me", key=key)).status == 200

        await report(app, scanner, old.secret, other.secret)

        statuses = [(await call(app, "GET", "/v1/me", key=key)).status for key in (old, new, other)]
        assert statuses == [401, 200, 401]


class TestGrace:
    @pytest.fixture
    async def app(self, settings: Settings, loggers: None) -> AsyncIterator[Starlette]:
        settings = msgspec.structs.replace(settings, leak_grace_s=3600)
        async with opened(lambda: create_app(settings), settings) as app:
            yield app

    async def test_a_leaked_key_ends_after_the_grace_period(self, app: Starlette, scanner: HeldKey) -> None:
        leaked = await hold_key(app)
        await hold_webhook(app, 1)

        found = await report(app, scanner, leaked.secret)
        await rotate_held(app, leaked, grace_s=24 * 3600)
        again = await report(app, scanner, leaked.secret)

        ends_at = datetime.fromisoformat(found[0]["works_until"])
        assert timedelta(minutes=59) < ends_at - datetime.now(UTC) <= timedelta(hours=1)
        assert (await call(app, "GET", "/v1/me", key=leaked)).status == 200
        assert (await ApiKey.filter_by(id=leaked.id).one()).expires_at == ends_at
        assert again == found
        assert [kind for kind, _ in await told(app)] == ["key.exposed", "key.rotated", "key.exposed"]

    async def test_the_end_of_a_key_is_never_moved_back(self, app: Starlette, scanner: HeldKey) -> None:
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
        leaked = await hold_key(app, expires_at=soon)

        found = await report(app, scanner, leaked.secret)

        assert datetime.fromisoformat(found[0]["works_until"]) == soon


@on_sqlite
async def test_a_url_that_contains_the_secret_is_not_stored(app: Starlette, scanner: HeldKey) -> None:
    leaked = await hold_key(app)
    escaped = leaked.secret.replace("_", "%5F")

    await report(app, scanner, leaked.secret, url=f"https://paste.example/?q={escaped}")

    assert (await events())[-1].after["exposed"]["url"] is None


@on_sqlite
async def test_no_secret_is_logged_or_answered(
    app: Starlette, scanner: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    leaked = await hold_key(app)
    wrong = typo_in(leaked.secret)
    body = {"data": [{"secret": leaked.secret}, {"secret": wrong}]}

    answers = [
        await call(app, "POST", PATH, key=scanner, body=body),
        await call(app, "POST", PATH, key=scanner, body={"data": [*body["data"], {"secret": 1}]}),
        await call(app, "POST", PATH, key=leaked, body=body),
    ]

    written = "\n".join([*(one.body.decode() for one in answers), *(one.getMessage() for one in log_lines)])
    assert [one.status for one in answers] == [200, 422, 401]
    for secret in (leaked.secret, wrong):
        assert secret not in written


@on_sqlite
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"data": []}, id="nothing"),
        pytest.param({"data": [{"secret": ""}]}, id="empty"),
        pytest.param({"data": [{"secret": "x" * 513}]}, id="long"),
        pytest.param({"data": [{"secret": "x"}] * 1001}, id="many"),
        pytest.param({"data": [{"secret": "x", "url": "two words"}]}, id="url"),
    ],
)
async def test_a_report_is_bounded(app: Starlette, scanner: HeldKey, body: Any) -> None:
    assert_problem(await call(app, "POST", PATH, key=scanner, body=body), 422, "invalid_body")


@on_mariadb
async def test_texts_without_the_format_of_a_secret_cost_no_query(app: Starlette, scanner: HeldKey) -> None:
    leaked = await hold_key(app)
    await report(app, scanner, "x")

    with wire.listening() as commands:
        found = await report(app, scanner, typo_in(leaked.secret), "password", leaked.access_key)

    assert found == [NOTHING] * 3
    assert len(commands) == 1, commands  # the authentication
