"""The first statement of a transaction is sent again when its connection proves dead, because nothing was done (R8)."""

import logging
from collections.abc import Callable
from typing import Any

from asyncmy.errors import Error
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from latchkey.service.database import driver
from latchkey.service.database.stalls import has_stalled
from latchkey.service.database.statements import is_transactional

log = logging.getLogger("latchkey.database")


def resend_first_statements(engine: AsyncEngine) -> None:
    """Make a transactional engine reopen a connection that proves dead at its first statement.

    A pooled connection may be closed at any time: by the server, by a balancer, or when the server restarts. Whatever the
    server did with the first statement, it rolled back when it lost the connection, because COMMIT was not sent.
    """
    dialect = engine.dialect
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(engine.sync_engine, name, _executing(getattr(dialect, name)))


def _executing(send: Callable[..., None]) -> Callable[..., bool]:
    def execute(cursor: Any, sql: str, *arguments: Any) -> bool:
        """Execute a statement, if it is one that may be sent again; return whether it was executed."""
        context = arguments[-1]
        connection = context.root_connection.connection.driver_connection
        if connection is None or connection.is_used:  # None while SQLAlchemy examines the server
            return False
        connection.is_used = True
        if not _may_send_again(connection, context, sql):
            return False
        try:
            send(cursor, sql, *arguments)
        except Error as error:
            if not driver.is_lost(error) or has_stalled():
                raise
            log.info("a pooled connection was dead, and is opened again: %s", error)
            try:
                await_only(connection.reopen())
            except driver.ConnectError as failure:
                raise error from failure  # SQLAlchemy drops the connection, and sends it no ROLLBACK
            send(cursor, sql, *arguments)
        return True

    return execute


def _may_send_again(connection: driver.Connection, context: Any, sql: str) -> bool:
    if connection.get_autocommit() or connection.get_transaction_status():
        return False
    compiled = context.compiled
    return is_transactional(None if compiled is None else compiled.statement, sql)
