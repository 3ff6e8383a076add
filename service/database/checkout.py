"""The check of a pooled connection when it is taken: one that cannot be used any more is replaced without a round trip."""

import asyncio
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.middleware.request_scope import RequestScope
from latchkey.service.database import driver, sqlite

CHECKS = "latchkey_checks"  # the execution option of an engine that holds its checks
_OPENED_S = "latchkey_opened_s"
_RETURNED_S = "latchkey_returned_s"

SERVERS_TIMEOUT_PART = 0.9  # a connection is replaced before the server closes it
DROPPED_AGAIN_S = (
    0.5  # a server that refuses every write costs a connection this often, not one for each call
)


class Checks:
    """The checks for the engines on one server.

    A connection is replaced when it is dead, when it was idle for too long, and when it was opened before `drop_all`: the
    server behind it has lost a role that the next one behind the same name has.

    Args:
        idle_s: the longest time without use; a server with a shorter `wait_timeout` sets the limit.
    """

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._dropped_s = 0.0

    def attach(self, engine: AsyncEngine) -> None:
        """Check the connections of an engine."""
        engine.sync_engine.update_execution_options(**{CHECKS: self})
        event.listen(engine.sync_engine, "connect", _note_opened)
        event.listen(engine.sync_engine, "checkin", _note_returned)
        event.listen(engine.sync_engine, "checkout", self._check)
        event.listen(engine.sync_engine, "handle_error", _note_error)

    def drop_all(self) -> None:
        """Replace every connection that is open now before it is used again."""
        now = time.monotonic()
        if now - self._dropped_s > DROPPED_AGAIN_S:
            self._dropped_s = now

    def _check(self, dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        task = asyncio.current_task()
        if task is not None:
            # The task uses the database, with or without a session (R7).
            RequestScope.admit(task)
        info = record.info
        connection = dbapi_connection.driver_connection
        if isinstance(connection, driver.Connection):
            connection.is_used = False
        if _RETURNED_S not in info:
            return
        reason = None
        if info[_OPENED_S] <= self._dropped_s:
            reason = "its server has lost its role"
        elif isinstance(connection, driver.Connection):
            limit_s = min(self._idle_s, connection.wait_timeout_s * SERVERS_TIMEOUT_PART)
            if connection.is_dead:
                reason = "it was closed from the other side"
            elif time.monotonic() - info[_RETURNED_S] > limit_s:
                reason = "it was idle for too long"
        if reason is not None:
            raise DisconnectionError(reason)


def _note_opened(_dbapi_connection: Any, record: Any) -> None:
    record.info[_OPENED_S] = time.monotonic()


def _note_returned(_dbapi_connection: Any, record: Any) -> None:
    record.info[_RETURNED_S] = time.monotonic()


def _note_error(context: Any) -> None:
    if context.engine is not None:
        note_error(context.engine, context.original_exception)


def note_error(engine: Engine, error: BaseException) -> None:
    """Drop the connections of a database that takes no writes: another server may have taken over its name.

    A connection to an SQLite file that was opened while the file was read-only stays read-only.
    """
    checks: Checks | None = engine.get_execution_options().get(CHECKS)
    if checks is not None and (driver.is_demoted(error) or sqlite.is_read_only(error)):
        checks.drop_all()
