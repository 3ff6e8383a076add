"""A migration that was killed is completed by the next run, and two simultaneous ones run once."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.util import CommandError
from sqlalchemy import event, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.models import ApiKey, Base, KeySecret
from latchkey.service.database import schema
from latchkey.service.database.engines import create_engines
from latchkey.service.database.lock import locked
from latchkey.service.settings import Settings
from tests.conftest import MARIADB

# Statements that only read, which a kill cannot leave half done.
LOOKS = ("SELECT", "SHOW", "DESCRIBE", "PRAGMA", "BEGIN")
LONG = os.environ.get("LATCHKEY_TEST_STORM") == "long"
KILLS = 20 if LONG else 3

MADE = "2026-01-02 03:04:05.678901"
KEY = "INSERT INTO api_keys (id, access_key, user_id, name, mode, scopes, status, secret_sha256, created_at, updated_at)"
ROWS = (
    f"INSERT INTO users VALUES (1, 'a@b', 'a@b', 'Ann', 'active', '{MADE}', '{MADE}')",
    f"{KEY} VALUES (1, X'61', 1, 'b', 'bearer', 'a:b', 'active', X'{'01' * 32}', '{MADE}', '{MADE}')",
    f"{KEY} VALUES (2, X'62', 1, 's', 'signed', '', 'active', X'{'02' * 32}', '{MADE}', '{MADE}')",
    f"INSERT INTO key_secrets VALUES (2, 1, X'{'03' * 60}', '{MADE}')",
)


class Killed(Exception):
    """The process was killed here."""


class Place:
    """An empty database, as often as needed."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.server = request.getfixturevalue("mariadb") if request.param == "mariadb" else None
        self.folder = folder

    def settings(self) -> Settings:
        if self.server is not None:
            self.server.create_database("broken")
            return Settings(database_url=self.server.url_of("broken"), pool_size=2)
        (self.folder / "broken.db").unlink(missing_ok=True)
        return Settings(database_url=f"sqlite+aiosqlite:///{self.folder / 'broken.db'}", pool_size=2)


@pytest.fixture(params=["sqlite", MARIADB])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request, tmp_path)


@pytest.fixture
async def engines() -> AsyncIterator[list[AsyncEngine]]:
    made: list[AsyncEngine] = []
    yield made
    for engine in made:
        await engine.dispose()


async def first_release(settings: Settings, engines: list[AsyncEngine]) -> AsyncEngine:
    """Return a database at the first revision, with a key of each mode."""
    engine = create_engines(settings).writer
    engines.append(engine)
    await schema.upgrade(engine, "0001")
    async with engine.begin() as connection:
        for statement in ROWS:
            await connection.exec_driver_sql(statement)
    return engine


@contextmanager
def killed_before(engine: AsyncEngine, number: int) -> Iterator[list[str]]:
    """Kill the migration before its changing statement of this number."""
    sent: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(LOOKS):
            return
        sent.append(statement)
        if len(sent) > number:
            raise Killed

    event.listen(engine.sync_engine, "before_cursor_execute", count)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", count)


async def rows(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        tables = [inspect(model).local_table for model in list[type[Base]]([ApiKey, KeySecret])]
        return [
            tuple(row)
            for table in tables
            for row in await connection.execute(select(table).order_by(*table.primary_key))
        ]


async def test_killed_before_any_of_its_statements_it_is_completed_by_the_next_run(
    place: Place, engines: list[AsyncEngine]
) -> None:
    whole = await first_release(place.settings(), engines)
    await schema.upgrade(whole)
    expected = await rows(whole)
    await whole.dispose()

    number, killed = 0, True
    while killed:
        engine = await first_release(place.settings(), engines)
        killed = False
        with killed_before(engine, number) as sent:
            try:
                await schema.upgrade(engine)
            except Killed:
                killed = True
        await schema.upgrade(engine)

        assert await schema.differences(engine) == [], sent[-1]
        assert await rows(engine) == expected, sent[-1]
        await engine.dispose()
        number += 1

    assert number > 15


async def test_killed_on_an_empty_database_too(place: Place, engines: list[AsyncEngine]) -> None:
    for number in range(8):
        engine = create_engines(place.settings()).writer
        engines.append(engine)
        with killed_before(engine, number), pytest.raises(Killed):
            await schema.upgrade(engine)
        await schema.upgrade(engine)

        assert await schema.differences(engine) == []
        await engine.dispose()


async def test_a_table_of_somebody_else_is_not_taken_for_ours(
    place: Place, engines: list[AsyncEngine]
) -> None:
    engine = create_engines(place.settings()).writer
    engines.append(engine)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, login VARCHAR(10))"))

    with pytest.raises(CommandError, match="the table users exists already, with other columns"):
        await schema.upgrade(engine)


async def test_two_at_once_do_it_once(place: Place, engines: list[AsyncEngine]) -> None:
    for _ in range(5):
        settings = place.settings()
        both = [create_engines(settings).writer for _ in range(2)]
        engines.extend(both)

        await asyncio.gather(*(schema.upgrade(one) for one in both))

        assert await schema.revision(both[0]) == schema.head()
        for one in both:
            await one.dispose()


@pytest.mark.parametrize("place", [MARIADB], indirect=True)
async def test_whoever_waits_for_too_long_is_told(
    place: Place, engines: list[AsyncEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_WAIT_S", 0)
    settings = place.settings()
    both = [create_engines(settings).writer for _ in range(2)]
    engines.extend(both)

    async with locked(both[0], "migrate"):
        with pytest.raises(schema.MigratingError, match="another process has been migrating"):
            await schema.upgrade(both[1])


@pytest.mark.parametrize("place", [MARIADB], indirect=True)
async def test_a_process_that_is_killed_is_followed_by_one_that_is_not(
    place: Place, engines: list[AsyncEngine], tmp_path: Path
) -> None:
    """`LATCHKEY_TEST_STORM=long` kills at 20 moments."""
    for kill in range(KILLS):
        settings = place.settings()
        await first_release(settings, engines)
        command = (sys.executable, "-m", "latchkey", "migrate")
        environ = {**os.environ, "LATCHKEY_DATABASE_URL": settings.database_url}
        process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environ, stderr=DEVNULL)
        while "broken" not in place.server.execute("SELECT db FROM information_schema.processlist"):
            assert process.returncode is None
        await asyncio.sleep(0.02 + 0.6 * kill / KILLS)
        process.kill()
        await process.wait()

        again = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environ, stderr=PIPE)
        _, said = await again.communicate()

        assert again.returncode == 0, said
        engine = create_engines(settings).writer
        engines.append(engine)
        assert await schema.differences(engine) == []
        assert [row.secret_sha256 for row in (await all_secrets(engine))] == [b"\1" * 32, b"\2" * 32]
        await engine.dispose()


async def all_secrets(engine: AsyncEngine) -> list[Any]:
    table = inspect(KeySecret).local_table
    async with engine.connect() as connection:
        return list(await connection.execute(select(table).order_by(table.c.api_key_id)))
