"""A start recognizes the key ring of its database, and a ring that is changed as documented stays right."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from latchkey.models import ApiKey, KeyringCanary, KeySecret, Scope, User, Webhook
from latchkey.service.app import create_app
from latchkey.service.audit.sealer import Sealer
from latchkey.service.authentication import canary
from latchkey.service.authentication.canary import WrongKeyRingError, adopt, require_right_keyring
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.engines import create_engines
from latchkey.service.from_code.session import open_session
from latchkey.service.keys.issuing import Issuer
from latchkey.service.settings import Settings
from latchkey.service.webhooks.rules import context
from tests.service.authentication.rings import ONE, OTHER_ONE, TWO, ring


async def canaries(db: SQLAlchemy) -> list[int]:
    async with db.reader.connect() as connection:
        return list(await connection.scalars(select(KeyringCanary.key_id).order_by(KeyringCanary.key_id)))


async def make_key(db: SQLAlchemy, keyring: KeyRing, mode: str = "signed") -> ApiKey:
    async with db.scoped_session() as session:
        owner = await User.filter().first() or await User.create(email="ann@example.com", name="Ann")
        key, _ = await Issuer("lk", keyring).issue(owner, name="k", mode=mode, scopes=[], expires_at=None)
        await session.commit()
    return key


async def refusal(db: SQLAlchemy, keyring: KeyRing) -> str:
    with pytest.raises(WrongKeyRingError) as refused:
        await require_right_keyring(db.engine, keyring)
    sentence = str(refused.value)
    assert not re.search(r"[A-Za-z0-9+/]{40}", sentence), "it shows a key"
    return sentence


async def test_the_first_start_leaves_a_canary_and_the_next_one_knows_it(db: SQLAlchemy) -> None:
    for _ in range(2):
        await require_right_keyring(db.engine, ring(ONE))

        assert await canaries(db) == [1]


@pytest.mark.parametrize(
    "other, fault",
    [
        (ring(OTHER_ONE), "its key 1 is another one"),
        (ring(TWO), "it has key 2, and the database was used with key 1"),
        (ring(TWO, OTHER_ONE), "its key 1 is another one"),
    ],
    ids=["another key of the same id", "another id", "another key behind a new one"],
)
async def test_another_ring_is_refused_and_changes_nothing(
    db: SQLAlchemy, other: KeyRing, fault: str
) -> None:
    await require_right_keyring(db.engine, ring(ONE))

    assert fault in await refusal(db, other)
    assert await canaries(db) == [1]
    await require_right_keyring(db.engine, ring(ONE))


async def test_a_ring_is_changed_key_by_key(db: SQLAlchemy) -> None:
    """As docs/settings.md says: a new key in front, and the old one away once nothing is sealed with it."""
    await require_right_keyring(db.engine, ring(ONE))
    key = await make_key(db, ring(ONE))

    await require_right_keyring(db.engine, ring(ONE, TWO))
    assert await canaries(db) == [1]
    await require_right_keyring(db.engine, ring(TWO, ONE))
    assert await canaries(db) == [1, 2]
    await require_right_keyring(db.engine, ring(ONE))  # a worker that starts again in the middle of it
    assert f"key 1 is missing, with which the secret of {key.access_key} is sealed" in await refusal(
        db, ring(TWO)
    )

    async with db.scoped_session() as session:
        row = await ApiKey.filter_by(id=key.id).for_update().one()
        await Issuer("lk", ring(TWO, ONE)).rotate(row, grace_s=0)
        await session.commit()
    await require_right_keyring(db.engine, ring(TWO))
    assert "key 2 is missing" in await refusal(db, ring(ONE))


@pytest.mark.parametrize(
    "change", ["key revoked", "key expired", "owner blocked", "secret expired", "bearer"]
)
async def test_a_key_of_the_ring_is_not_missed_by_what_cannot_be_called_with(
    db: SQLAlchemy, change: str
) -> None:
    await require_right_keyring(db.engine, ring(ONE))
    await require_right_keyring(db.engine, ring(TWO, ONE))
    key = await make_key(db, ring(ONE), mode="bearer" if change == "bearer" else "signed")
    statements = {
        "key revoked": update(ApiKey).values(status="revoked"),
        "key expired": update(ApiKey).values(expires_at=key.created_at),
        "owner blocked": update(User).values(status="blocked"),
        "secret expired": update(KeySecret).values(expires_at=key.created_at),
    }
    if change in statements:
        async with db.engine.begin() as connection:
            await connection.execute(statements[change])

    await require_right_keyring(db.engine, ring(TWO))


async def hold_webhook(db: SQLAlchemy, **values: Any) -> None:
    """Create a webhook whose secret, and the one that it replaced, are sealed with key 1."""
    sealed, old_sealed = (ring(ONE).seal(b"whsec_", context(1, version)) for version in (2, 1))
    ends_at = values.pop("old_secret_expires_at")
    async with db.scoped_session() as session:
        session.add(
            Webhook(
                **{"id": 1, "url": "https://a.example/", "secret_version": 2, "sealed": sealed} | values,
                old_sealed=old_sealed,
                old_secret_expires_at=datetime.now(UTC) + ends_at,
            )
        )
        await session.commit()


@pytest.mark.parametrize(
    "values, is_needed",
    [
        ({}, True),
        ({"enabled": False}, False),
        ({"sealed": ring(TWO).seal(b"whsec_", context(1, 2))}, True),
        (
            {
                "sealed": ring(TWO).seal(b"whsec_", context(1, 2)),
                "old_secret_expires_at": timedelta(minutes=-1),
            },
            False,
        ),
    ],
    ids=["enabled", "disabled", "the replaced secret", "the replaced secret has ended"],
)
async def test_the_secret_of_an_enabled_webhook_needs_its_key(
    db: SQLAlchemy, values: dict[str, Any], is_needed: bool
) -> None:
    await require_right_keyring(db.engine, ring(ONE))
    await require_right_keyring(db.engine, ring(TWO, ONE))
    await hold_webhook(db, **{"old_secret_expires_at": timedelta(hours=1)} | values)

    if is_needed:
        assert "key 1 is missing, with which the secret of webhook 1 is sealed" in await refusal(
            db, ring(TWO)
        )
    else:
        await require_right_keyring(db.engine, ring(TWO))


async def test_the_head_of_the_audit_log_needs_its_key(db: SQLAlchemy) -> None:
    for one in (ring(ONE), ring(TWO, ONE)):
        await require_right_keyring(db.engine, one)
    async with db.scoped_session() as session:
        await Scope.create(name="orders:read", noun="orders")
        await session.commit()
    await Sealer(db, ring(ONE)).seal()

    assert "key 1 is missing, with which the head of the audit log is sealed" in await refusal(db, ring(TWO))


async def test_a_database_of_an_earlier_release_is_recognized_by_its_secrets(db: SQLAlchemy) -> None:
    key = await make_key(db, ring(ONE))

    assert f"it does not open the secret of {key.access_key}" in await refusal(db, ring(OTHER_ONE))
    assert await canaries(db) == []
    await require_right_keyring(db.engine, ring(TWO, ONE))
    assert await canaries(db) == [2]


async def test_a_canary_of_another_row_does_not_count(db: SQLAlchemy) -> None:
    await require_right_keyring(db.engine, ring(ONE))
    async with db.engine.begin() as connection:
        await connection.execute(update(KeyringCanary).values(key_id=2))

    assert "its key 2 is another one" in await refusal(db, ring(ONE, TWO))


async def test_workers_that_start_at_once_leave_one(settings: Settings, db: SQLAlchemy) -> None:
    """Each with a connection of its own, as processes have."""
    engines = [create_engines(settings).writer for _ in range(8)]
    try:
        await asyncio.gather(*(require_right_keyring(one, ring(ONE)) for one in engines))
    finally:
        for one in engines:
            await one.dispose()

    assert await canaries(db) == [1]


async def test_one_of_two_rings_that_start_at_once_is_refused(settings: Settings, db: SQLAlchemy) -> None:
    engines = [create_engines(settings).writer for _ in range(2)]
    try:
        found = await asyncio.gather(
            *(
                require_right_keyring(one, keyring)
                for one, keyring in zip(engines, (ring(ONE), ring(OTHER_ONE)), strict=True)
            ),
            return_exceptions=True,
        )
    finally:
        for one in engines:
            await one.dispose()

    assert [type(one) for one in found if one is not None] == [WrongKeyRingError]


async def test_a_database_that_takes_no_write_is_checked_all_the_same(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[Any] = []
    monkeypatch.setattr(canary.log, "warning", lambda text, *values: warnings.append(text % values))

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO keyring_canaries"):
            raise OperationalError(statement, {}, Exception(1290, "read-only"))

    event.listen(db.engine.sync_engine, "before_cursor_execute", refuse)
    try:
        await require_right_keyring(db.engine, ring(ONE))
    finally:
        event.remove(db.engine.sync_engine, "before_cursor_execute", refuse)

    assert warnings == [
        "the canary of the key ring could not be written, and the next start will try again: (1290, 'read-only')"
    ]
    assert await canaries(db) == []
    await require_right_keyring(db.engine, ring(ONE))
    assert "its key 1 is another one" in await refusal(db, ring(OTHER_ONE))


async def test_a_ring_is_adopted_in_place_of_one_that_is_lost(db: SQLAlchemy) -> None:
    await require_right_keyring(db.engine, ring(ONE))
    await make_key(db, ring(ONE))

    await adopt(db.engine, ring(TWO))

    assert await canaries(db) == [2]
    await require_right_keyring(db.engine, ring(TWO))
    await refusal(db, ring(ONE))


async def leave_another(settings: Settings) -> None:
    """Make the database that of another ring."""
    engine = create_engines(settings).writer
    keyring = KeyRing.from_text(KeyRing.generate_text())
    async with engine.begin() as connection:
        await connection.execute(
            insert(KeyringCanary).values(key_id=1, sealed=keyring.seal(b"latchkey", b"canary 1"))
        )
    await engine.dispose()


async def test_an_application_does_not_start_with_another_ring(settings: Settings, app: Starlette) -> None:
    await leave_another(settings)

    with pytest.raises(WrongKeyRingError, match="its key 1 is another one"):
        async with app.router.lifespan_context(app):
            raise AssertionError("it started")


async def test_a_script_does_not_either(settings: Settings, app: Starlette) -> None:
    await leave_another(settings)

    with pytest.raises(WrongKeyRingError):
        async with open_session(app):
            raise AssertionError("it opened")


async def test_an_application_that_starts_leaves_a_canary(app: Starlette, settings: Settings) -> None:
    async with app.router.lifespan_context(app):
        assert await canaries(app.state.db) == [1]
    again = create_app(settings)
    async with again.router.lifespan_context(again):
        assert await canaries(again.state.db) == [1]
