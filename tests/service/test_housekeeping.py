"""Only expired rows are deleted, by one process at a time."""

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import Base, IdempotencyKey, LimitCounter, Nonce, UsageFlush, WebhookDelivery
from latchkey.models.lookups import identified
from latchkey.models.types import utc_in
from latchkey.service import housekeeping
from latchkey.service.app import create_app
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.lock import locked
from latchkey.service.housekeeping import EXPIRING, purge
from latchkey.service.lifespan import lifespan
from latchkey.service.settings import Settings
from latchkey.service.usage.rollup import Ages
from tests.conftest import on_mariadb, opened, table_of
from tests.mariadb import PrivateMariaDB

NOTHING = {model.__tablename__: 0 for model in EXPIRING}


def row_of(model: type[Base], number: int, expires_at: Any) -> dict[str, Any]:
    """Return a row of a purged table; a new table must be added here."""
    name = f"{number:032d}"
    rows: dict[type[Base], dict[str, Any]] = {
        Nonce: {"access_key": "lka_0", "nonce": name.encode()},
        LimitCounter: {"subject": name, "version": 1, "state": b""},
        UsageFlush: {"worker": name.encode()[-16:], "number": 1},
        IdempotencyKey: {"id": name.encode(), "fingerprint": name.encode()},
        WebhookDelivery: {
            "webhook_id": 1,
            "event_id": name,
            "type": "key.created",
            "payload": b"{}",
            "status": "dead",
            "attempts": 0,
            "created_at": datetime.now(UTC),
        },
    }
    return {**rows[model], "expires_at": expires_at}


async def fill(db: SQLAlchemy, model: type[Base], *seconds: float, first: int = 0) -> None:
    """Insert rows that expire in a number of seconds."""
    now = datetime.now(UTC)
    async with db.engine.begin() as connection:
        rows = [row_of(model, first + n, now + timedelta(seconds=s)) for n, s in enumerate(seconds)]
        await connection.execute(insert(table_of(model)), rows)


async def count(db: SQLAlchemy, model: type[Base]) -> int:
    async with db.reader.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(model))).scalar_one()


def test_every_table_that_is_purged_is_found_by_its_end() -> None:
    """There is an index, otherwise each batch would scan the table."""
    for model in EXPIRING:
        table = table_of(model)
        assert [index for index in table.indexes if list(index.columns) == [table.c.expires_at]], table.name


@pytest.mark.parametrize("model", EXPIRING, ids=lambda model: model.__tablename__)
async def test_expired_rows_are_deleted_and_the_rest_stays(db: SQLAlchemy, model: type[Any]) -> None:
    await fill(db, model, -86400, -1, 60, 86400)

    gone = await purge(db.engine)

    assert gone == NOTHING | {model.__tablename__: 2}
    assert await count(db, model) == 2
    assert await purge(db.engine) == NOTHING


@pytest.mark.parametrize(
    "seconds, offset, gone",
    [
        pytest.param(-60, -3600, 0, id="our clock is behind"),
        pytest.param(60, 3600, 0, id="our clock is ahead"),
        pytest.param(-60, 0, 1, id="they agree"),
    ],
)
async def test_both_clocks_must_say_that_it_is_over(
    db: SQLAlchemy, seconds: int, offset: int, gone: int
) -> None:
    await fill(db, Nonce, seconds)

    found = await purge(db.engine, clock=lambda: datetime.now(UTC) + timedelta(seconds=offset))

    assert found["nonces"] == gone


async def test_it_goes_in_batches_with_pauses_between(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BATCH_ROWS", 10)
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0.001)
    await fill(db, Nonce, *[-60.0] * 35, 60)
    told: list[tuple[str, int]] = []

    gone = await purge(db.engine, report=lambda table, rows: told.append((table, rows)))

    assert gone["nonces"] == 35
    assert told == [("nonces", 10), ("nonces", 20), ("nonces", 30), ("nonces", 35)]


async def test_between_two_batches_no_lock_is_held(db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "BATCH_ROWS", 1)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def write_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        await fill(db, Nonce, 60, first=100 + len(pauses))
        await sleep(0)

    await fill(db, Nonce, -60, -60)
    monkeypatch.setattr(asyncio, "sleep", write_meanwhile)
    await purge(db.engine)
    monkeypatch.setattr(asyncio, "sleep", sleep)

    assert len(pauses) == 2
    assert await count(db, Nonce) == 2


async def test_a_row_that_made_way_for_a_new_one_meanwhile_stays(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its primary key is in the batch, but it is another row by now."""
    await fill(db, IdempotencyKey, -60)
    identify = identified

    def renew(model: Any, rows: Any) -> Any:
        found.extend(rows)
        return identify(model, rows)

    found: list[Any] = []
    monkeypatch.setattr(housekeeping, "identified", renew)
    select_of = AsyncConnection.execute

    async def execute(self: Any, statement: Any, *arguments: Any, **options: Any) -> Any:
        if statement.is_delete and found:
            found.clear()
            await self.commit()
            async with db.engine.begin() as other:
                await select_of(other, table_of(IdempotencyKey).update().values(expires_at=utc_in(60)))
        return await select_of(self, statement, *arguments, **options)

    monkeypatch.setattr(AsyncConnection, "execute", execute)

    assert (await purge(db.engine))["idempotency_keys"] == 0
    assert await count(db, IdempotencyKey) == 1


@on_mariadb
async def test_while_one_purges_nobody_else_does(db: SQLAlchemy) -> None:
    await fill(db, Nonce, -60)

    async with locked(db.engine, "purge"):
        assert await purge(db.engine) is None
    gone = await purge(db.engine)

    assert gone["nonces"] == 1


@on_mariadb
async def test_a_process_that_dies_loses_the_lock(db: SQLAlchemy, mariadb: PrivateMariaDB) -> None:
    with pytest.raises(DBAPIError, match=r"gone away|Lost connection|Not connected"):
        async with locked(db.engine, "purge") as connection:
            number = (await connection.execute(text("SELECT CONNECTION_ID()"))).scalar_one()
            mariadb.execute(f"KILL CONNECTION {number}")
            while await purge(db.engine) is None:
                await asyncio.sleep(0.01)


@on_mariadb
async def test_a_purge_that_is_cancelled_leaves_no_lock(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BATCH_ROWS", 1)
    monkeypatch.setattr(housekeeping, "PAUSE_S", 60)
    await fill(db, Nonce, -60, -60)
    purging = asyncio.create_task(purge(db.engine))
    while await count(db, Nonce) == 2:
        await asyncio.sleep(0.01)

    purging.cancel()
    await asyncio.wait([purging])
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0)
    while (gone := await purge(db.engine)) is None:
        await asyncio.sleep(0.01)

    assert gone["nonces"] == 1


@on_mariadb
async def test_a_lock_whose_holder_is_cancelled_within_a_statement_is_free(db: SQLAlchemy) -> None:
    """The connection does not belong to the pool, and is closed nevertheless."""

    async def hold() -> None:
        async with locked(db.engine, "purge") as connection:
            entered.set()
            await connection.execute(text("SELECT SLEEP(30)"))

    entered = asyncio.Event()
    holding = asyncio.create_task(hold())
    await entered.wait()
    await asyncio.sleep(0.05)
    holding.cancel()
    await asyncio.wait([holding])

    async with locked(db.engine, "purge", wait_s=10) as connection:
        assert connection is not None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_purge_that_is_cancelled_anywhere_closes_its_connection(db: SQLAlchemy) -> None:
    """Each connection to SQLite has a thread, which ends with it."""
    await purge(db.engine)
    before = threading.active_count()
    for step in range(60):
        purging = asyncio.create_task(purge(db.engine, keys_kept_days=30))
        await asyncio.sleep(0.0003 * step)
        purging.cancel()
        await asyncio.wait([purging])

    async with asyncio.timeout(10):
        while threading.active_count() > before:
            await asyncio.sleep(0.01)


async def test_a_purge_takes_no_connection_from_the_pool(db: SQLAlchemy) -> None:
    """The pool of two keeps both connections for others."""
    async with locked(db.engine, "purge"), db.engine.connect(), db.engine.connect():
        assert db.checked_out() == 2


async def test_the_service_purges_by_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "PURGE_EVERY_S", 0.01)
    async with opened(lambda: create_app(settings), settings) as app:
        db = app.state.db
        await fill(db, Nonce, -60, 60)

        async with lifespan(app):
            while await count(db, Nonce) == 2:
                await asyncio.sleep(0.01)

    assert not db.is_open


async def test_a_purge_that_fails_is_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loggers: None
) -> None:
    monkeypatch.setattr(housekeeping, "PURGE_EVERY_S", 0.01)
    monkeypatch.setattr(housekeeping, "SHARE_WITH_SCANS", 1)
    tried: list[int | None] = []
    done = asyncio.Event()

    async def fail_once(_engine: Any, *, keys_kept_days: int | None, usage_ages: Ages) -> Any:
        assert usage_ages.days.days == settings.usage_days_kept_days
        tried.append(keys_kept_days)
        if len(tried) == 1:
            raise ConnectionRefusedError
        done.set()
        return NOTHING

    monkeypatch.setattr(housekeeping, "purge", fail_once)
    app = create_app(settings)
    logging.getLogger("latchkey").propagate = True
    async with lifespan(app), asyncio.timeout(20):
        await done.wait()

    assert "could not be deleted" in caplog.text
    assert set(tried) == {settings.ended_keys_kept_days}
