"""Stored values are encrypted with the first key of the ring while the service works with them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from latchkey.models import ApiKey, KeySecret, Webhook
from latchkey.models import Base as LatchkeyBase
from latchkey.service.audit.sealer import Sealer
from latchkey.service.audit.verification import Verification
from latchkey.service.authentication.canary import WrongKeyRingError, require_right_keyring
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.database import SQLAlchemy
from latchkey.service.keys.issuing import Issuer
from latchkey.service.ring_keys import rewrapping
from latchkey.service.ring_keys.places import PLACES
from latchkey.service.ring_keys.rewrapping import Rewrapped, rewrap
from latchkey.service.ring_keys.uses import Uses, read_uses
from latchkey.service.webhooks.rules import Secrets
from tests.conftest import on_mariadb, table_of
from tests.service.authentication.rings import ONE, TWO, entry, ring
from tests.service.ring_keys.rows import (
    access_key,
    add_sealed_events,
    hold_keys,
    hold_webhook,
    opened_secrets,
    secret,
)

OLD, BOTH, NEW = ring(ONE), ring(TWO, ONE), ring(TWO)


async def rewrapped(db: SQLAlchemy, keyring: KeyRing = BOTH) -> Rewrapped:
    done = await rewrap(db.engine, db.reader, keyring, lambda _rows: None)
    assert done is not None
    return done


async def uses(db: SQLAlchemy) -> dict[int, Uses]:
    async with db.reader.connect() as connection:
        return await read_uses(connection)


def test_every_encrypted_column_is_listed() -> None:
    """A column that is missing would keep its ring key in use after `rewrap` has said that it may be removed."""
    stored = {
        f"{table.name}.{column.name}"
        for table in LatchkeyBase.metadata.tables.values()
        for column in table.columns
        if any(word in column.name for word in ("seal", "proof"))
    }

    assert stored == {
        *(f"{place.column.table.name}.{place.column.name}" for place in PLACES),
        "keyring_canaries.sealed",  # recognizes its own key
        "audit_events.seal",  # an HMAC, whose key `audit verify` needs
        "audit_heads.proof",  # renewed
    }


async def test_values_are_the_same_and_need_the_first_key_only(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "BATCH_ROWS", 2)
    monkeypatch.setattr("latchkey.service.ring_keys.places.WINDOW_IDS", 3)
    await require_right_keyring(db.engine, OLD)
    await hold_keys(db, OLD, 8)
    await hold_webhook(db, OLD)
    await require_right_keyring(db.engine, BOTH)
    with pytest.raises(WrongKeyRingError):
        await require_right_keyring(db.engine, NEW)
    async with db.reader.connect() as connection:
        before = (await connection.execute(select(table_of(Webhook)))).one()

    done = await rewrapped(db)

    assert (done.values, done.failed) == (10, 0)
    assert await opened_secrets(db, NEW) == [secret(one) for one in range(1, 9)]
    async with db.reader.connect() as connection:
        webhook = (await connection.execute(select(table_of(Webhook)))).one()
    signers = Secrets(NEW).signers(webhook, webhook.created_at)
    assert signers == ["whsec_2", "whsec_1"]
    assert webhook.updated_at == before.updated_at
    await require_right_keyring(db.engine, NEW)
    assert (await rewrapped(db)).values == 0


async def test_the_audit_log_is_sealed_and_verified_further(db: SQLAlchemy) -> None:
    await add_sealed_events(db, OLD, "a", "b")

    assert (await rewrapped(db)).values == 1
    await add_sealed_events(db, NEW, "c")

    async with db.reader.connect() as connection:
        report = await Verification(BOTH).run(connection)
        without = await Verification(NEW).run(connection)
    assert (report.sealed, report.faults) == (3, [])
    assert without.faults == ["2 events: The value was sealed with key 1, which is not in the key ring."]
    found = await uses(db)
    assert (found[1].audit_events, found[1].first_position, found[1].last_position) == (2, 1, 2)
    assert (found[1].words, found[2].words) == ([], ["the head of the audit log"])


async def test_a_value_that_changed_meanwhile_is_not_overwritten(db: SQLAlchemy) -> None:
    await hold_keys(db, OLD, 1)
    place = PLACES[0]
    async with db.engine.begin() as connection:
        row = (await connection.execute(place.rows)).one()
        stale = {"key_0": 1, "key_1": 1, "old_value": row.sealed, "new_value": b"stale"}
        current = OLD.seal_secret(secret(5), access_key(1), 1)
        await connection.execute(update(table_of(KeySecret)).values(sealed=current))

        changed = await connection.execute(place.replacement(), [stale])

    assert changed.rowcount == 0
    assert await opened_secrets(db, OLD) == [secret(5)]


async def test_keys_are_rotated_meanwhile(db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrapping, "BATCH_ROWS", 5)
    await hold_keys(db, OLD, 30)
    issuer = Issuer("lk", BOTH)
    current: list[str] = []

    async def rotate() -> None:
        for one in range(1, 31, 3):
            async with db.scoped_session() as session:
                key = await ApiKey.filter_by(id=one).for_update().one()
                current.append((await issuer.rotate(key, grace_s=3600)).secret)
                await session.commit()

    done, _ = await asyncio.gather(rewrapped(db), asyncio.create_task(rotate()))

    assert done.failed == 0
    found = await opened_secrets(db, NEW)
    assert len(found) == 40
    assert set(found) == {*(secret(one) for one in range(1, 31)), *current}


@on_mariadb
async def test_a_second_process_is_refused(db: SQLAlchemy) -> None:
    await hold_keys(db, OLD, 3)
    second: list[Any] = []

    async def start_another() -> None:
        second.append(await rewrap(db.engine, db.reader, BOTH, lambda _rows: None))

    running: list[asyncio.Task[None]] = []
    done = await rewrap(
        db.engine, db.reader, BOTH, lambda _rows: running.append(asyncio.create_task(start_another()))
    )
    await asyncio.gather(*running)

    assert done is not None
    assert done.values == 3
    assert None in second


async def test_a_value_that_does_not_open_is_named_and_the_others_are_encrypted(db: SQLAlchemy) -> None:
    await hold_keys(db, OLD, 3)
    async with db.engine.begin() as connection:
        lost = ring(entry(9, 9)).seal_secret(secret(2), access_key(2), 1)
        await connection.execute(
            update(table_of(KeySecret)).where(table_of(KeySecret).c.api_key_id == 2).values(sealed=lost)
        )

    done = await rewrapped(db)

    assert (done.values, done.failed) == (2, 1)
    assert len(done.faults) == 1
    assert f"the secret of {access_key(2)}, version 1: The value was sealed with key 9" in done.faults[0]
    assert (await uses(db))[9].encrypted == {"secrets of keys": 1}


async def test_a_changed_head_is_not_proved_anew(db: SQLAlchemy) -> None:
    await add_sealed_events(db, OLD, "a")
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE audit_heads SET position = 7")

    done = await rewrapped(db)

    assert (done.values, done.failed) == (0, 1)
    assert "the head of the audit log was changed" in done.faults[0]
    assert (await uses(db))[1].audit_head == 1


async def test_a_sealer_goes_on_meanwhile(db: SQLAlchemy) -> None:
    """Both lock the head, so neither overwrites what the other one has written."""
    await add_sealed_events(db, OLD, "a")
    sealer = Sealer(db, BOTH)

    async def work() -> None:
        for name in "bcdef":
            await add_sealed_events(db, BOTH, name)

    done, _ = await asyncio.gather(rewrapped(db), asyncio.create_task(work()))
    await sealer.seal()

    async with db.reader.connect() as connection:
        report = await Verification(BOTH).run(connection)
    assert done.failed == 0
    assert (report.sealed, report.faults) == (6, [])
