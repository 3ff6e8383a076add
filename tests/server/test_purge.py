"""A killed purge leaves its lock and its work to the next one."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from latchkey.models import Nonce
from latchkey.service.database import SQLAlchemy
from latchkey.service.housekeeping import purge
from latchkey.service.settings import Settings
from tests.conftest import on_mariadb, table_of

ROWS = 30_000


@pytest.fixture
async def expired(db: SQLAlchemy) -> int:
    """Insert many expired nonces."""
    ended = datetime.now(UTC) - timedelta(minutes=1)
    rows = [{"access_key": "lka_0", "nonce": b"n%d" % n, "expires_at": ended} for n in range(ROWS)]
    async with db.engine.begin() as connection:
        await connection.execute(insert(table_of(Nonce)), rows)
    return ROWS


@on_mariadb
async def test_a_purge_that_is_killed_is_ended_by_the_next_one(
    db: SQLAlchemy, settings: Settings, expired: int, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "latchkey", "purge"),
        cwd=tmp_path,
        env={**os.environ, "LATCHKEY_DATABASE_URL": settings.database_url},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"nonces: 10000 so far\n"
    meanwhile = await purge(db.engine)
    process.kill()
    await process.communicate()
    while (gone := await purge(db.engine)) is None:
        await asyncio.sleep(0.01)
    async with db.reader.connect() as connection:
        left = (await connection.execute(select(func.count()).select_from(Nonce))).scalar_one()

    assert meanwhile is None
    assert 0 < gone["nonces"] <= expired - 10_000
    assert left == 0
