"""`latchkey webhooks`: list, ping and redeliver."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import update

from latchkey.models import WebhookDelivery
from latchkey.service.app import create_app
from latchkey.service.settings import Settings
from tests.service.commands.running import Run, answered
from tests.service.webhooks.rows import deliveries, hold_webhook, write


@pytest.fixture
def webhook(migrated: Settings) -> Settings:
    """Create a webhook with a refused address and a dead delivery, and return the settings."""
    in_application(migrated, fill)
    return migrated


def in_application(settings: Settings, work: Any) -> Any:
    async def run() -> Any:
        app = create_app(settings)
        try:
            return await work(app)
        finally:
            await app.state.db.close()

    return asyncio.run(run())


async def fill(app: Any) -> None:
    await hold_webhook(app, 1)
    await write(app, "key.created")
    async with app.state.db.engine.begin() as connection:
        await connection.execute(update(WebhookDelivery).values(status="dead", attempts=7))


def test_webhooks_are_listed(webhook: Settings, run: Run) -> None:
    [row] = answered(run("webhooks", "list", "--json"))["data"]

    assert (row["id"], row["enabled"]) == (1, True)
    assert "sealed" not in row
    assert "https://127.0.0.1/" in run("webhooks", "list").stdout


def test_a_ping_that_fails_says_so(webhook: Settings, run: Run) -> None:
    result = run("webhooks", "ping", "1", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"].startswith("127.0.0.1 is not a public address")


def test_what_was_given_up_is_delivered_again(webhook: Settings, run: Run) -> None:
    result = run("webhooks", "redeliver", "1")

    assert (result.exit_code, result.stderr) == (0, "1 events will be delivered again.\n")
    [row] = in_application(webhook, lambda app: deliveries(app, 1))
    assert (row.status, row.attempts) == ("pending", 0)


@pytest.mark.parametrize("command", ["ping", "redeliver"])
def test_a_webhook_that_does_not_exist_is_named(webhook: Settings, run: Run, command: str) -> None:
    result = run("webhooks", command, "7")

    assert result.exit_code == 1
    assert "there is no webhook 7." in result.stderr
