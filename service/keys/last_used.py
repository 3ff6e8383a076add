"""When keys were last used, and how often their replaced secrets: collected in memory, written every few seconds."""

import asyncio
import logging
from datetime import datetime
from operator import itemgetter

import msgspec
from sqlalchemy import Table, bindparam, case, inspect, or_, update

from latchkey.models import ApiKey
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.conflicts import log_failure

log = logging.getLogger("latchkey.last_used")

WRITE_EVERY_S = 5.0

KEYS = inspect(ApiKey).local_table
assert isinstance(KEYS, Table)  # noqa: S101 - what a declared model has
# Several workers write, so the time only moves forward. Using a key does not change it, so updated_at stays.
ADVANCE = (
    update(KEYS)
    .where(
        KEYS.c.id == bindparam("key_id"),
        or_(KEYS.c.last_used_at.is_(None), KEYS.c.last_used_at < bindparam("used_at")),
    )
    .values(last_used_at=bindparam("used_at"), updated_at=KEYS.c.updated_at)
)
# Uses of a replaced secret are dropped if the key was rotated again since.
ADD_OLD = (
    update(KEYS)
    .where(KEYS.c.id == bindparam("key_id"), KEYS.c.secret_version == bindparam("old_version") + 1)
    .values(
        old_secret_calls=KEYS.c.old_secret_calls + bindparam("calls"),
        old_secret_last_used_at=case(
            (KEYS.c.old_secret_last_used_at > bindparam("used_at"), KEYS.c.old_secret_last_used_at),
            else_=bindparam("used_at"),
        ),
        updated_at=KEYS.c.updated_at,
    )
)


class OldUses(msgspec.Struct):
    """The number of uses of a replaced secret, and the time of the last one."""

    calls: int
    used_at: datetime


class LastUsed:
    """Collects the uses of keys and of their replaced secrets, and writes them at intervals.

    Requests never wait for these writes. A worker that dies loses the uses of a few seconds.
    """

    def __init__(self, db: SQLAlchemy) -> None:
        self._db = db
        self._used: dict[int, datetime] = {}
        self._old: dict[tuple[int, int], OldUses] = {}

    def note(self, key_id: int, moment: datetime) -> None:
        """Remember that a key was used."""
        self._used[key_id] = moment

    def note_old(self, key_id: int, version: int, moment: datetime) -> None:
        """Count a use of the replaced secret of this version."""
        self._add_old((key_id, version), OldUses(1, moment))

    def _add_old(self, secret: tuple[int, int], uses: OldUses) -> None:
        before = self._old.setdefault(secret, OldUses(0, uses.used_at))
        before.calls += uses.calls
        before.used_at = max(before.used_at, uses.used_at)

    async def write(self) -> None:
        """Write the collected uses; if that fails, they are kept for the next attempt."""
        if not self._used and not self._old:
            return
        gathered, self._used = self._used, {}
        old, self._old = self._old, {}
        statements = [
            (key_id, ADVANCE, {"key_id": key_id, "used_at": moment}) for key_id, moment in gathered.items()
        ]
        for (key_id, version), uses in old.items():
            values = {"old_version": version, "calls": uses.calls, "used_at": uses.used_at}
            statements.append((key_id, ADD_OLD, {"key_id": key_id, **values}))
        try:
            async with self._db.scoped_session() as session:
                for _, statement, values in sorted(statements, key=itemgetter(0)):  # against deadlocks
                    await session.execute(statement, values)
                await session.commit()
        except BaseException:
            self._used = gathered | self._used
            for secret, uses in old.items():
                self._add_old(secret, uses)
            raise

    async def write_for_ever(self) -> None:
        """Write every few seconds until cancelled."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            try:
                await self.write()
            except Exception as error:  # noqa: BLE001 - it is logged, and tried again
                log_failure(log, "the last uses of keys could not be written; trying again", error)
