"""Several processes write and seal at once: one chain, and no event is lost."""

import asyncio
import os
import subprocess
import sys

from latchkey.models import Scope
from latchkey.service.audit.sealer import Sealer
from latchkey.service.audit.verification import Verification
from latchkey.service.authentication.keyring import open_keyring
from latchkey.service.database import SQLAlchemy
from latchkey.service.settings import Settings

PROCESSES = 4
EACH = int(os.environ.get("LATCHKEY_TEST_AUDIT_EVENTS", "6"))


async def write(settings: Settings, name: str) -> None:
    """Make changes, and seal what is there after every few of them."""
    db = SQLAlchemy()
    db.init_app(None, settings)
    sealer = Sealer(db, open_keyring(settings))
    for number in range(EACH):
        async with db.scoped_session() as session:
            await Scope.create(name=f"{name}:v{number}", noun=name)
            await session.commit()
        if number % 3 == 0:
            await sealer.seal()
    await db.close()


def start(settings: Settings) -> list[subprocess.Popen[bytes]]:
    """Start the processes."""
    environ = {
        **os.environ,
        "LATCHKEY_DATABASE_URL": settings.database_url,
        "LATCHKEY_KEYRING": settings.keyring or "",
    }
    return [
        subprocess.Popen([sys.executable, "-m", __name__, f"p{number}"], env=environ)
        for number in range(PROCESSES)
    ]


async def test_processes_at_once_make_one_chain(db: SQLAlchemy, settings: Settings) -> None:
    running = start(settings)
    ended = [await asyncio.to_thread(one.wait, 120) for one in running]

    keyring = open_keyring(settings)
    await Sealer(db, keyring).seal()
    async with db.reader.connect() as connection:
        report = await Verification(keyring).run(connection)

    assert ended == [0] * PROCESSES
    assert (report.sealed, report.unsealed, report.faults) == (PROCESSES * EACH, 0, [])


if __name__ == "__main__":
    asyncio.run(write(Settings.from_env(os.environ), sys.argv[1]))
