"""When keys were last used: gathered in memory, written every few seconds outside requests."""

import asyncio
import logging
from datetime import datetime

from sqlalchemy import Table, bindparam, inspect, or_, update

from models import ApiKey
from service.database import SQLAlchemy

log = logging.getLogger("latchkey.last_used")

WRITE_EVERY_S = 5.0

KEYS = inspect(ApiKey).local_table
assert isinstance(KEYS, Table)  # noqa: S101 - what a declared model has
# Only forward, several workers write; and the use of a key is no change of it, so updated_at stays.
ADVANCE = (
    update(KEYS)
    .where(
        KEYS.c.id == bindparam("key_id"),
        or_(KEYS.c.last_used_at.is_(None), KEYS.c.last_used_at < bindparam("used_at")),
    )
    .values(last_used_at=bindparam("used_at"), updated_at=KEYS.c.updated_at)
)


class LastUsed:
    """Collects the uses of keys and writes them now and then.

    A worker that dies loses a few seconds of them; a request never waits for them.
    """

    def __init__(self, db: SQLAlchemy) -> None:
        self._db = db
        self._used: dict[int, datetime] = {}

    def note(self, key_id: int, moment: datetime) -> None:
        """Remember that a key was used."""
        self._used[key_id] = moment

    async def write(self) -> None:
        """Write what was gathered; what cannot be written is kept for the next time."""
        if not self._used:
            return
        gathered, self._used = self._used, {}
        try:
            async with self._db.scoped_session() as session:
                for key_id, moment in sorted(gathered.items()):  # in one order, against deadlocks
                    await session.execute(ADVANCE, {"key_id": key_id, "used_at": moment})
                await session.commit()
        except BaseException:
            self._used = gathered | self._used
            raise

    async def write_for_ever(self) -> None:
        """Write every few seconds until cancelled."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            try:
                await self.write()
            except Exception:
                log.exception("the last uses of keys could not be written; trying again")
