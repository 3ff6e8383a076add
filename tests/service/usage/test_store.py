"""A batch is counted once, however often it is sent."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from latchkey.models import UsageFlush, UsageSeries
from latchkey.service.usage import series as series_module
from latchkey.service.usage.counting import Usage
from latchkey.service.usage.series import OVERFLOW, Series
from latchkey.service.usage.store import Store
from tests.service.usage.counted import stored, usage_of

READ = Series("GET /v1/me", 200)


def other_worker(app: Starlette) -> Usage:
    """Return the counter of another worker of the same database."""
    db = app.state.db
    return Usage(Store(lambda: db.engine, lambda: db.reader), flush_s=1)


async def total(app: Starlette) -> int:
    return (await stored(app)).total()


class LostAnswers:
    """COMMITs whose answers are lost, before or after their effect."""

    def __init__(self, app: Starlette, patch: pytest.MonkeyPatch, *losses: str) -> None:
        self.losses = list(losses)
        dialect = app.state.db.engine.sync_engine.dialect
        self.commit = dialect.do_commit
        patch.setattr(dialect, "do_commit", self)

    def __call__(self, connection: Any) -> None:
        lost = self.losses.pop(0) if self.losses else None
        if lost != "before":
            self.commit(connection)
        if lost is not None:
            raise OperationalError("COMMIT", {}, Exception(2013, "Lost"), connection_invalidated=True)


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param(["after"], id="after its effect"),
        pytest.param(["before"], id="before its effect"),
        pytest.param(["before", "after", "before"], id="several times"),
        pytest.param(["after", "after"], id="twice after"),
    ],
)
@pytest.mark.parametrize("earlier", [0, 2], ids=["the first batch", "a later batch"])
async def test_a_batch_whose_commit_got_no_answer_is_counted_once(
    app: Starlette, monkeypatch: pytest.MonkeyPatch, losses: list[str], earlier: int
) -> None:
    usage = usage_of(app)
    for _ in range(earlier):
        usage.note(1, READ, 1)
        await usage.flush()
    answers = LostAnswers(app, monkeypatch, *losses)

    for _ in losses:
        usage.note(1, READ, 1)
        with pytest.raises(OperationalError):
            while answers.losses:
                await usage.flush()
    usage.note(1, READ, 1)
    await usage.flush()

    assert await total(app) == earlier + len(losses) + 1


async def test_calls_during_an_outage_are_kept_and_counted_once(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = usage_of(app)
    write, attempts = usage.store.write, 0

    async def fail_thrice(batch: Any) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 3:
            raise ConnectionError
        await write(batch)

    monkeypatch.setattr(usage.store, "write", fail_thrice)
    for _ in range(3):
        usage.note(1, READ, 1)
        with pytest.raises(ConnectionError):
            await usage.flush()

    await usage.flush()

    assert await total(app) == 3
    assert attempts == 5  # the batch that failed, and one with all later calls


async def test_workers_add_to_the_same_rows(app: Starlette) -> None:
    workers = [usage_of(app), other_worker(app)]
    for worker in workers:
        for number in range(20):
            worker.note(number % 5, READ, 1)

    for worker in workers:
        await worker.flush()

    assert await total(app) == 40
    async with app.state.db.reader.connect() as connection:
        assert len((await connection.execute(select(UsageFlush.worker))).all()) == 2
        assert len((await connection.execute(select(UsageSeries.id))).all()) == 1


async def test_a_flush_that_is_cancelled_is_counted_once(app: Starlette) -> None:
    usage = usage_of(app)
    for steps in range(40):
        usage.note(1, READ, 1)
        flushing = asyncio.create_task(usage.flush())
        for _ in range(steps):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait([flushing])

    await usage.flush()

    assert await total(app) == 40


async def test_a_key_has_a_bounded_number_of_series_with_tags(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_module, "MOST_TAGGED_PER_KEY", 3)
    usage = usage_of(app)
    for number in range(5):
        usage.note(1, READ._replace(tags=f"call-{number}"), 1)
    usage.note(2, READ._replace(tags="blue"), 1)
    usage.note(2, READ, 1)
    await usage.flush()

    found = Counter({tags: calls for (_, _, _, tags), calls in (await stored(app)).items()})

    assert found[OVERFLOW] == 2
    assert found["blue"] == found[""] == 1
    assert found.total() == 7
    for number in range(5, 9):
        usage.note(1, READ._replace(tags=f"call-{number}"), 1)
    await usage.flush()
    assert (await stored(app, 1))[READ.route, 200, "", OVERFLOW] == 6
