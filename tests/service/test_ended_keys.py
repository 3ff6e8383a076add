"""Keys that ended long ago are deleted with their secrets; all others, and those that a team's row refers to, stay."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import ForeignKey, MetaData, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from latchkey.models import ApiKey, KeySecret, UsageCount, User
from latchkey.models.usage import DAY as DAY_MIN
from latchkey.models.usage import HOUR, MINUTE
from latchkey.service import ended_keys
from latchkey.service.database import SQLAlchemy
from latchkey.service.housekeeping import purge
from tests.conftest import tables_of

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KEYS: dict[str, tuple[str, timedelta, timedelta | None]] = {
    "revoked long ago": ("revoked", 31 * DAY, None),
    "revoked lately": ("revoked", 29 * DAY, None),
    "expired long ago": ("active", 90 * DAY, 31 * DAY),
    "expired lately": ("active", 90 * DAY, 29 * DAY),
    "not used for long": ("active", 90 * DAY, None),
    "not expired yet": ("active", 90 * DAY, -DAY),
    "revoked lately, expired long ago": ("revoked", DAY, 31 * DAY),
}
"""The status of a key, and how long ago it was changed and has expired."""
ENDED = {"revoked long ago", "expired long ago", "revoked lately, expired long ago"}


class Team(DeclarativeBase):
    """The base of a team."""

    metadata = MetaData()


class Delivery(Team):
    """A row that refers to a key."""

    __tablename__ = "ended_deliveries"
    __table_args__ = {"mysql_engine": "InnoDB"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    key_id: Mapped[int] = mapped_column(ForeignKey(ApiKey.id))


@pytest.fixture
async def keys(db: SQLAlchemy) -> dict[str, int]:
    """Create the keys, each with a secret, and return their ids."""
    async with db.scoped_session() as session:
        user = await User.create(email="ann@example.com", name="Ann")
        ids = {}
        for number, (name, (status, changed, expired)) in enumerate(KEYS.items()):
            key = await ApiKey.create(
                access_key=f"lka_{number}",
                user=user,
                name=name,
                mode="bearer",
                scopes=(),
                status=status,
                updated_at=NOW - changed,
                expires_at=None if expired is None else NOW - expired,
            )
            await KeySecret.create(api_key=key, version=1, secret_sha256=bytes([number]) * 32)
            for minutes in (MINUTE, HOUR, DAY_MIN):
                await UsageCount.create(
                    minutes=minutes, key_id=key.id, start=0, series_id=1, calls=1, units=1, refresh=False
                )
            ids[name] = key.id
        await session.commit()
    return ids


async def names(db: SQLAlchemy) -> set[str]:
    """Return the names of the keys, each of which must have its secret and its usage."""
    found = await ApiKey.filter().load("secrets").all()
    assert all(len(one.secrets) == 1 for one in found)
    assert await KeySecret.filter().count() == len(found)
    assert await UsageCount.filter().count() == 3 * len(found)
    return {one.name for one in found}


@pytest.mark.parametrize("batch", [500, 2, 1])
async def test_keys_that_ended_long_ago_go(
    db: SQLAlchemy, keys: dict[str, int], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ended_keys, "BATCH_KEYS", batch)

    gone = await purge(db.engine, keys_kept_days=30)

    assert gone is not None
    assert gone["api_keys"] == len(ENDED)
    assert await names(db) == KEYS.keys() - ENDED
    assert "api_keys" not in (await purge(db.engine) or {})


async def test_both_clocks_must_agree(db: SQLAlchemy, keys: dict[str, int]) -> None:
    for offset in (-30 * DAY, 30 * DAY):
        gone = await purge(db.engine, keys_kept_days=60, clock=lambda offset=offset: NOW + offset)  # type: ignore[misc]  # bound at once
        assert gone is not None
        assert gone["api_keys"] == 0


@pytest.fixture
async def deliveries(db: SQLAlchemy) -> AsyncIterator[None]:
    async with tables_of(Team.metadata, db):
        yield


async def test_a_key_that_a_row_of_a_team_refers_to_stays(
    db: SQLAlchemy, deliveries: None, keys: dict[str, int]
) -> None:
    async with db.scoped_session() as session:
        session.add(Delivery(key_id=keys["revoked long ago"]))
        await session.commit()

    for deleted in (2, 0):
        gone = await purge(db.engine, keys_kept_days=30)
        assert gone is not None
        assert gone["api_keys"] == deleted

    assert await names(db) == (KEYS.keys() - ENDED) | {"revoked long ago"}


async def test_a_key_that_is_extended_meanwhile_stays(db: SQLAlchemy, keys: dict[str, int]) -> None:
    ids = [keys["expired long ago"]]
    async with db.engine.begin() as connection:
        await connection.execute(update(ApiKey).where(ApiKey.id.in_(ids)).values(expires_at=NOW + DAY))

    async with db.engine.connect() as connection:
        ended = ended_keys.ended_before(30, NOW)
        assert await ended_keys.delete_keys(connection, ids, ended) == 0

    assert "expired long ago" in await names(db)
