"""A replica that is out of reach, or behind: reads go to the primary until it answers, or has caught up."""

import asyncio
import logging
from typing import Any
from weakref import WeakSet

from sqlalchemy import event, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.service.database import driver
from latchkey.service.database.conflicts import is_unreachable
from latchkey.service.database.pool import FairPool
from latchkey.service.database.positions import BehindError, position_of, wait_in_greenlet

log = logging.getLogger("latchkey.database")

PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 1.0

_PROBE = select(literal(1))


class Replica:
    """The state of the replica, which a probe keeps current while the service runs.

    A read that fails because the replica is out of reach is run on the primary. A silent replica is noticed by the probe,
    which aborts the reads that wait for it.

    Args:
        engine: reads on the replica.
        probe: has a connection of its own, so that a busy pool is not taken for a replica that is down.
        primary: reads on the primary, for its position: every read then sees what was committed before it. None allows
            older states.
    """

    def __init__(self, engine: AsyncEngine, probe: AsyncEngine, primary: AsyncEngine | None = None) -> None:
        self.engine = engine
        self.probe = probe
        self.is_up = True
        self.is_behind = False
        self._primary = primary
        self._connections: WeakSet[driver.Connection] = WeakSet()
        event.listen(engine.sync_engine, "connect", self._note_connection)

    @property
    def sees_writes(self) -> bool:
        """Return whether a read must see what was committed before it."""
        return self._primary is not None

    @property
    def is_usable(self) -> bool:
        """Return whether reads go to the replica."""
        return self.is_up and not self.is_behind

    def is_cause_of(self, error: Exception, engine: AsyncEngine) -> bool:
        """Return whether a read on `engine` failed because of the replica; if so, reads go to the primary from now on."""
        if engine is not self.engine:
            return False
        if isinstance(error, DBAPIError) and isinstance(error.orig, BehindError):
            self._note_behind()
            return True
        if isinstance(error, DBAPIError) and is_unreachable(error):
            self._note_down(error)
            return True
        # It is busy, or the position is unknown: only this read goes to the primary.
        return isinstance(error, PoolTimeoutError)

    async def watch(self) -> None:
        """Probe the replica until cancelled."""
        while True:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S), self.probe.connect() as connection:
                    await connection.execute(_PROBE)
                    if self.is_behind:
                        await self._look_again(connection)
            except (TimeoutError, DBAPIError, PoolTimeoutError) as error:
                self._note_down(error)
            else:
                if not self.is_up:
                    log.info("the replica answers again, and is used for reads")
                self.is_up = True
            await asyncio.sleep(PROBE_EVERY_S)

    async def _look_again(self, connection: AsyncConnection) -> None:
        """Use the replica again if it has caught up with the primary."""
        assert self._primary is not None  # noqa: S101 - otherwise nothing waits for it
        try:
            position = await position_of(self._primary)
            await connection.run_sync(wait_in_greenlet, position)
        except PoolTimeoutError:
            return  # the primary is out of reach, which is not the replica's fault
        except DBAPIError as error:
            if isinstance(error.orig, BehindError):
                return
            raise
        self.is_behind = False
        log.info("the replica has caught up, and is used for reads")

    def _note_behind(self) -> None:
        if not self.is_behind:
            log.warning("the replica is behind, and reads go to the primary")
        self.is_behind = True

    def _note_down(self, error: Exception) -> None:
        if not self.is_up:
            return
        self.is_up = False
        words = str(getattr(error, "orig", error)) or "it does not answer"
        log.warning("the replica is out of reach, and reads go to the primary: %s", words)
        for connection in self._connections:
            connection.abort()
        pool = self.engine.pool
        assert isinstance(pool, FairPool)  # noqa: S101 - as every engine of ours
        pool.refuse_waiters()

    def _note_connection(self, dbapi_connection: Any, _record: Any) -> None:
        connection = dbapi_connection.driver_connection
        if isinstance(connection, driver.Connection):
            self._connections.add(connection)
