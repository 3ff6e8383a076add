"""`latchkey migrate` in processes: killed at any point it is completed by the next one, and two at once do it once.

`LATCHKEY_TEST_MIGRATIONS=long` kills it at 20 points of each upgrade (`make test-migrations`).
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.database import schema
from latchkey.service.database.engines import name_of
from tests.models.migrations import Place, contents

LONG = os.environ.get("LATCHKEY_TEST_MIGRATIONS") == "long"
KILLS = 20 if LONG else 1
ROUNDS = 10 if LONG else 1
ROOT = Path(__file__).parents[2]


async def start(place: Place, *arguments: str, folder: Path = ROOT) -> asyncio.subprocess.Process:
    environ = {**os.environ, "LATCHKEY_DATABASE_URL": place.url}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=folder, env=environ, stdout=DEVNULL, stderr=PIPE
    )


async def end(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    _, told = await process.communicate()
    return process.returncode, told.decode()


async def tables(engine: AsyncEngine) -> dict[str, list[str]]:
    """Return the lines of the statement that creates each table or index; their order depends on the hash seed."""
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            found = (await connection.execute(text("SELECT name, sql FROM sqlite_master"))).all()
        else:
            names = await connection.run_sync(lambda one: inspect(one).get_table_names())
            found = [(await connection.execute(text(f"SHOW CREATE TABLE `{name}`"))).one() for name in names]
    return {
        name: sorted(line.strip(" ,\t") for line in (statement or "").splitlines())
        for name, statement in found
    }


async def whole(engine: AsyncEngine) -> tuple[Any, ...]:
    return await schema.revision(engine), await tables(engine), await contents(engine)


@pytest.mark.parametrize("holds_rows", [False, True], ids=["an empty one", "the first release with rows"])
async def test_a_process_that_is_killed_is_completed_by_the_next_one(
    place: Place, tmp_path: Path, holds_rows: bool
) -> None:
    async def prepare() -> AsyncEngine:
        place.empty()
        return await place.first_release() if holds_rows else place.engine()

    engine = await prepare()
    file = tmp_path / "points"
    assert (await end(await start(place, "tests.models.migrating", str(file))))[0] == 0
    expected, points = await whole(engine), len(file.read_text().splitlines())
    assert points > 30
    assert expected[0] == schema.head()

    for kill in range(KILLS):
        await engine.dispose()
        engine = await prepare()
        # Spread over all points; a single kill of the short form is in the middle.
        point = str((2 * kill + 1) * points // (2 * KILLS))
        file.unlink()
        status, _ = await end(await start(place, "tests.models.migrating", str(file), point))
        assert status == -signal.SIGKILL
        died = file.read_text().splitlines()[-1]

        status, told = await end(await start(place, "latchkey", "migrate", folder=tmp_path))

        assert status == 0, (died, told)
        assert await whole(engine) == expected, died
        assert await schema.differences(engine) == [], died


async def test_one_of_two_simultaneous_migrations_runs_and_both_succeed(place: Place, tmp_path: Path) -> None:
    for _ in range(ROUNDS):
        place.empty()
        both = [await start(place, "latchkey", "migrate", folder=tmp_path) for _ in range(2)]
        ended = await asyncio.gather(*(end(one) for one in both))
        engine = place.engine()

        assert [status for status, _ in ended] == [0, 0], ended
        name, head = name_of(engine.url), schema.head()
        lines = [told.splitlines() for _, told in ended]
        assert sorted(one[-1] for one in lines) == [
            f"Migrated the database {name} from revision none to {head}.",
            f"The database {name} is at revision {head} already.",
        ]
        waits = f"Another process is migrating the database {name} or writing to it: waiting for up to 60 seconds."
        assert {one for told in lines for one in told[:-1]} <= {waits}
        assert await schema.differences(engine) == []
