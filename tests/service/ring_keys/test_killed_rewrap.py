"""`latchkey keyring rewrap` that is killed half-way is continued by the next one."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL

from sqlalchemy import func, select

from latchkey.models import KeySecret
from latchkey.service.database import SQLAlchemy
from latchkey.service.ring_keys.rewrapping import BATCH_ROWS, rewrap
from latchkey.service.settings import Settings
from tests.conftest import table_of
from tests.service.authentication.rings import ONE, TWO, ring
from tests.service.ring_keys.rows import hold_keys, opened_secrets, secret

KEYS = BATCH_ROWS + 50


async def start(settings: Settings) -> asyncio.subprocess.Process:
    ring_text = f"{TWO},{ONE}"
    environ = {**os.environ, "LATCHKEY_DATABASE_URL": settings.database_url, "LATCHKEY_KEYRING": ring_text}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.service.ring_keys.rewrapping_slowly", "keyring", "rewrap"),
        env=environ,
        stdout=DEVNULL,
    )


async def count_encrypted(db: SQLAlchemy, key_id: int) -> int:
    column = table_of(KeySecret).c.sealed
    counted = select(func.count()).where(column >= key_id.to_bytes(4), column < (key_id + 1).to_bytes(4))
    async with db.reader.connect() as connection:
        return int((await connection.execute(counted)).scalar_one())


async def test_a_process_that_is_killed_is_continued(db: SQLAlchemy, settings: Settings) -> None:
    await hold_keys(db, ring(ONE), KEYS)
    killed = await start(settings)
    async with asyncio.timeout(30):
        while not await count_encrypted(db, 2):
            await asyncio.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    assert await count_encrypted(db, 2) == BATCH_ROWS
    assert await opened_secrets(db, ring(TWO, ONE)) == [secret(one) for one in range(1, KEYS + 1)]

    done = await rewrap(db.engine, db.reader, ring(TWO, ONE), lambda _rows: None)

    assert done is not None
    assert done.values == KEYS - BATCH_ROWS
    assert await opened_secrets(db, ring(TWO)) == [secret(one) for one in range(1, KEYS + 1)]
