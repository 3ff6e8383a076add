"""Reads on the replica that see every write that was committed before them: `LATCHKEY_READ_YOUR_WRITES=gtid`.

The position of the primary in its binary log is read when a request reads on the replica for the first time, and the
replica is asked to wait until it has applied it. No worker remembers a position, so the number of workers, a restart
and a write by a command do not matter.
"""

from collections.abc import Sequence
from typing import Any

from asyncmy.errors import OperationalError
from sqlalchemy import Connection, Integer, String, literal_column, select, type_coerce
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import OperationalError as WrappedOperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.database import driver
from latchkey.service.database.plan import RowValues
from latchkey.service.database.prepared import Prepared, fetch
from latchkey.service.settings import SettingsError

WAIT_S = 0.25  # for which a read waits for the replica; then it goes to the primary
APPLIED = 0

_WAIT = "SELECT MASTER_GTID_WAIT(%s, %s)"
_GTID = type_coerce(literal_column("@@GLOBAL.gtid_binlog_pos"), String)
_POSITION = Prepared(select(_GTID))
_LOG = Prepared(select(type_coerce(literal_column("@@GLOBAL.log_bin"), Integer), _GTID))


class BehindError(OperationalError):
    """The replica did not apply a position in time."""

    def __init__(self) -> None:
        super().__init__("the replica has not applied the last writes in time")


async def position_of(primary: AsyncEngine) -> str:
    """Return the position after every commit that the primary has acknowledged.

    Raises:
        sqlalchemy.exc.TimeoutError: the primary cannot be asked; a read there fails with the cause.
    """
    try:
        ((position,),) = await _POSITION.run(primary, {})
    except DBAPIError as error:
        raise PoolTimeoutError("the position of the primary is unknown") from error
    return str(position)


async def wait_for(connection: driver.Connection, position: str) -> None:
    """Wait until the server of a connection has applied a position, unless it has already waited for it.

    Raises:
        BehindError: it has not, after `WAIT_S` seconds.
    """
    if connection.applied == position:
        return
    rows, _ = await fetch(connection, _WAIT, (position, WAIT_S))
    if rows[0][0] != APPLIED:
        raise BehindError
    connection.applied = position


class FetchAt:
    """A `fetch` on a server that has applied a position."""

    def __init__(self, position: str) -> None:
        self._position = position

    async def __call__(self, connection: Any, sql: str, given: RowValues) -> tuple[Sequence[RowValues], Any]:
        """Execute a statement, and return its rows and their description.

        Raises:
            BehindError: the server has not applied the position in time.
        """
        await wait_for(connection, self._position)
        return await fetch(connection, sql, given)


def wait_in_greenlet(connection: Connection, position: str) -> None:
    """Do the same as `wait_for` for a connection of SQLAlchemy.

    Raises:
        DBAPIError: as an execution does; its cause is a `BehindError` if the server has not applied the position in time.
    """
    found = connection.connection.driver_connection
    assert isinstance(found, driver.Connection)  # noqa: S101 - a replica is no SQLite file
    if found.applied == position:
        return
    if connection.exec_driver_sql(_WAIT, (position, WAIT_S)).scalar() != APPLIED:
        raise WrappedOperationalError(_WAIT, None, BehindError(), hide_parameters=True)
    found.applied = position


async def require_positions(primary: AsyncEngine) -> None:
    """Raise an error for a primary that has no positions.

    Raises:
        SettingsError: it is no MariaDB, or writes no binary log.
    """
    try:
        ((is_logging, _),) = await _LOG.run(primary, {})
    except DBAPIError as error:
        if error.orig is not None and driver.number_of(error.orig) == driver.UNKNOWN_VARIABLE:
            raise SettingsError(
                "LATCHKEY_READ_YOUR_WRITES=gtid needs MariaDB: this database has no gtid_binlog_pos. Without it, remove "
                "the setting, or remove LATCHKEY_READER_URL, so that every read goes to the primary."
            ) from None
        raise
    if not is_logging:
        raise SettingsError(
            "LATCHKEY_READ_YOUR_WRITES=gtid needs the binary log of the primary, which is off: start it with log_bin."
        )
