"""The column types mean the same on both databases."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import StatementError

from latchkey.models.types import utc_now
from latchkey.service.database import SQLAlchemy
from tests.models.refresh_models import Typed

pytestmark = pytest.mark.usefixtures("refresh_tables")

MOMENT = datetime(2026, 11, 22, 13, 0, 0, 123456, tzinfo=UTC)


async def stored(**values: Any) -> Typed:
    """Return a row, read again by another session."""
    row = await Typed.create(name="one", **values, auto_commit=True)
    return await Typed.filter(id=row.id).one()


@pytest.mark.parametrize(
    "given",
    [
        MOMENT,
        MOMENT.astimezone(timezone(timedelta(hours=5, minutes=45))),
        MOMENT.astimezone(timezone(-timedelta(hours=9))),
        datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        None,
    ],
    ids=["UTC", "east", "west", "the first microsecond", "the last microsecond", "none"],
)
async def test_a_moment_comes_back_in_utc_to_the_microsecond(given: datetime | None) -> None:
    row = await stored(moment=given)

    assert row.moment == given
    assert given is None or row.moment.tzinfo is UTC


async def test_a_moment_is_stored_in_utc_without_a_zone(db: SQLAlchemy) -> None:
    await stored(moment=MOMENT.astimezone(timezone(timedelta(hours=5, minutes=45))))

    async with db.engine.connect() as connection:
        raw = (await connection.execute(text("SELECT moment FROM refresh_typed"))).scalar_one()
    assert str(raw) == "2026-11-22 13:00:00.123456"


async def test_a_moment_without_a_zone_is_refused(db: SQLAlchemy) -> None:
    with pytest.raises(StatementError, match=r"has no time zone: use datetime.now\(UTC\)"):
        await Typed.create(name="one", moment=datetime(2026, 11, 22), auto_commit=True)  # noqa: DTZ001 - the slip
    with pytest.raises(StatementError, match="has no time zone"):
        await Typed.filter(moment__gt=datetime(2026, 11, 22)).count()  # noqa: DTZ001 - the slip


async def test_the_clock_is_the_databases_and_in_utc(db: SQLAlchemy) -> None:
    async with db.engine.connect() as connection:
        await connection.execute(
            text("SET time_zone = '+05:00'" if connection.dialect.name == "mysql" else "SELECT 1")
        )
        first, second = [(await connection.execute(select(utc_now()))).scalar_one() for _ in range(2)]

    assert first.tzinfo is UTC
    assert abs(first - datetime.now(UTC)) < timedelta(seconds=5)
    assert second >= first


async def test_moments_are_ordered(db: SQLAlchemy) -> None:
    for number, moment in enumerate(
        [MOMENT, MOMENT - timedelta(microseconds=1), MOMENT + timedelta(microseconds=1)]
    ):
        await Typed.create(id=number + 1, name=str(number), moment=moment, auto_commit=True)

    assert [one.name for one in await Typed.filter().order_by("moment").all()] == ["1", "0", "2"]
    assert [one.name for one in await Typed.filter(moment__lt=MOMENT).all()] == ["1"]


@pytest.mark.parametrize("given", ["abc", "", "Straße", "\N{GRINNING FACE}", "a ", None])
async def test_a_text_in_bytes_comes_back(given: str | None) -> None:
    row = await stored(text=given)

    assert row.text == given
    assert await Typed.filter(text=given).count() == 1


@pytest.mark.parametrize("other", ["ABC", "Abc", "abc ", "\N{LATIN SMALL LETTER A WITH ACUTE}bc"])
async def test_a_text_in_bytes_equals_itself_only(other: str) -> None:
    await stored(text="abc")

    assert await Typed.filter(text="abc").count() == 1
    assert await Typed.filter(text=other).count() == 0
    assert await Typed.filter(text__in=[other]).count() == 0


@pytest.mark.parametrize("given", [(), ("one",), ("users:read", "keys:write"), None])
async def test_words_come_back_as_a_tuple(given: tuple[Any, ...] | None) -> None:
    assert (await stored(words=given)).words == given


@pytest.mark.parametrize(
    "slip", [("two words",), ("",), ("tab\t",), "users:read", ("\N{NO-BREAK SPACE}",)], ids=repr
)
async def test_values_that_would_be_read_as_other_words_are_refused(
    db: SQLAlchemy, slip: tuple[str, ...] | str
) -> None:
    with pytest.raises(StatementError, match="the value must be a tuple of words without white space"):
        await Typed.create(name="one", words=slip, auto_commit=True)

    assert await Typed.filter().count() == 0
