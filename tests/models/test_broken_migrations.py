"""A migration that was interrupted is completed by the next run, and two simultaneous ones run once."""

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic.util import CommandError
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.database import schema
from latchkey.service.database.lock import locked
from tests.conftest import MARIADB
from tests.models.migrating import changes
from tests.models.migrations import Place, contents

STEP = 1 if os.environ.get("LATCHKEY_TEST_MIGRATIONS") == "long" else 6
"""Every statement in the long form (`make test-migrations`), and some of them in the short one."""


class Killed(Exception):
    """The process was killed here."""


@contextmanager
def killed_before(engine: AsyncEngine, number: int) -> Iterator[list[str]]:
    """Kill the migration before its changing statement of this number."""
    sent: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not changes(statement):
            return
        sent.append(statement)
        if len(sent) > number:
            raise Killed

    event.listen(engine.sync_engine, "before_cursor_execute", count)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", count)


async def test_killed_before_any_of_its_statements_it_is_completed_by_the_next_run(place: Place) -> None:
    whole = await place.first_release()
    await schema.upgrade(whole)
    expected = await contents(whole)
    await whole.dispose()

    number, killed = random.randrange(STEP), True
    while killed:
        place.empty()
        engine = await place.first_release()
        killed = False
        with killed_before(engine, number) as sent:
            try:
                await schema.upgrade(engine)
            except Killed:
                killed = True
        await schema.upgrade(engine)

        assert await schema.differences(engine) == [], sent[-1]
        assert await contents(engine) == expected, sent[-1]
        await engine.dispose()
        number += STEP

    assert number > 15


async def test_killed_on_an_empty_database_too(place: Place) -> None:
    for number in range(0, 8, min(STEP, 3)):
        place.empty()
        engine = place.engine()
        with killed_before(engine, number), pytest.raises(Killed):
            await schema.upgrade(engine)
        await schema.upgrade(engine)

        assert await schema.differences(engine) == []
        await engine.dispose()


async def test_a_table_of_somebody_else_is_not_taken_for_ours(place: Place) -> None:
    engine = place.engine()
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, login VARCHAR(10))"))

    with pytest.raises(CommandError, match="the table users exists already, with other columns"):
        await schema.upgrade(engine)


async def test_two_at_once_do_it_once(place: Place) -> None:
    for _ in range(5 if STEP == 1 else 2):
        place.empty()
        both = [place.engine() for _ in range(2)]

        done = await asyncio.gather(*(schema.upgrade(one) for one in both))

        assert {(one.before, one.after) for (one,) in done} == {
            (None, schema.head()),
            (schema.head(), schema.head()),
        }
        for one in both:
            await one.dispose()


async def test_a_process_that_waits_for_too_long_gets_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_WAIT_S", 1)
    both = [place.engine() for _ in range(2)]
    told: list[str] = []

    async with locked(both[0], "migrate") as holder, holder.begin():
        with pytest.raises(schema.MigratingError, match=r"broken.* for more than 1 seconds"):
            await schema.upgrade(both[1], report=lambda: told.append("waits"))

    assert told == ["waits"]


@pytest.mark.parametrize("place", [MARIADB], indirect=True)
async def test_a_table_in_use_is_not_waited_for_without_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_WAIT_S", 1)
    engine = await place.first_release()

    async with engine.connect() as user:
        await user.execute(text("SELECT * FROM api_keys"))
        with pytest.raises(OperationalError, match="1205"):
            await schema.upgrade(engine)
    await schema.upgrade(engine)

    assert await schema.differences(engine) == []
