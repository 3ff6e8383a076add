"""No event is lost when the process that delivers is killed; a double has the same id.

`make test-webhooks` sends 10,000 events to a receiver that fails half of the time, and kills 20 processes.
"""

import asyncio
import os
import random
import signal
import sys
from collections import Counter

import pytest
from starlette.applications import Starlette

from latchkey.service.outbox.events import new_event
from latchkey.service.outbox.writing import write_events
from latchkey.service.settings import Settings
from tests.conftest import on_mariadb
from tests.receiver import Received, Receiver
from tests.service.webhooks.rows import deliveries, hold_webhook, wait_for_status

IS_LONG = os.environ.get("LATCHKEY_TEST_WEBHOOKS") == "long"
EVENTS, KILLS = (10_000, 20) if IS_LONG else (60, 2)
WITHIN_S = 3600.0 if IS_LONG else 60.0

pytestmark: list[pytest.MarkDecorator] = [] if IS_LONG else [on_mariadb]


def environ_of(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "LATCHKEY_DATABASE_URL": settings.database_url,
        "LATCHKEY_KEYRING": settings.keyring or "",
        "LATCHKEY_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "LATCHKEY_WEBHOOK_HTTP": "allow",
        "LATCHKEY_WEBHOOK_RETRY_S": "0.001",
    }


class Failing:
    """Answers half of the requests with 500, and kills the process at some of those that it accepts, before it answers.

    The process then never marks the event as delivered.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.accepted: list[str] = []
        self.killed: list[str] = []
        self.process: asyncio.subprocess.Process | None = None

    def answer(self, received: Received) -> int:
        if self.random.random() < 0.5:
            return 500
        self.accepted.append(received.event_id)
        every = EVENTS // (KILLS + 1)
        if len(self.killed) < KILLS and len(set(self.accepted)) == every * (len(self.killed) + 1):
            assert self.process is not None
            self.process.send_signal(signal.SIGKILL)
            self.killed.append(received.event_id)
        return 204


async def keep_running(failing: Failing, settings: Settings) -> None:
    """Run the process, and start it again when it was killed."""
    while True:
        failing.process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.service.webhooks.delivering", env=environ_of(settings),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert await process.wait() == -signal.SIGKILL
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise


async def test_events_survive_the_death_of_the_deliverer(
    app: Starlette, settings: Settings, receiver: Receiver
) -> None:
    failing = Failing(seed=16)
    receiver.answer = failing.answer
    secret = await hold_webhook(app, 1, receiver.url)
    events = [new_event("key.created", {"place": place}) for place in range(EVENTS)]
    async with app.state.db.engine.begin() as connection:
        await connection.run_sync(write_events, events)

    running = asyncio.create_task(keep_running(failing, settings))
    try:
        await wait_for_status(app, 1, "delivered", within_s=WITHIN_S)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    in_order = [event.id for event in events]
    counts = Counter(failing.accepted)
    assert len(failing.killed) == KILLS
    assert list(dict.fromkeys(failing.accepted)) == in_order
    assert {one for one, count in counts.items() if count > 1} == set(failing.killed)
    assert all(one.verified(secret)["type"] == "key.created" for one in receiver.requests[:50])
    assert [row.event_id for row in await deliveries(app, 1)] == in_order
