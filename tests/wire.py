"""What goes over the wire: every command that a connection sends, counted exactly.

On MariaDB a subclass of the driver's connection counts in the one method through which every command
goes; events of SQLAlchemy would see about half of them. SQLite has no wire, so statements are counted.

A prepared statement is noted by its text each time it is executed. Preparing it is once more for each connection, and
is noted only for who listens with `preparing=True`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import aiosqlite
import pytest
from asyncmy.connection import PreparedStatement
from asyncmy.constants.COMMAND import COM_STMT_CLOSE, COM_STMT_EXECUTE, COM_STMT_PREPARE
from sqlalchemy import event

from latchkey.service.database.driver import Connection
from latchkey.service.database.rules import Engines

COM_STMT_BULK_EXECUTE = 0xFA  # MariaDB's own; the driver knows it, and does not name it

_commands: ContextVar[list[str] | None] = ContextVar("commands", default=None)
_preparing: ContextVar[bool] = ContextVar("preparing", default=False)


@contextmanager
def listening(*, preparing: bool = False) -> Iterator[list[str]]:
    """Collect the commands that this context and the tasks it starts send."""
    commands: list[str] = []
    tokens = _commands.set(commands), _preparing.set(preparing)
    try:
        yield commands
    finally:
        _commands.reset(tokens[0])
        _preparing.reset(tokens[1])


def note(command: str) -> None:
    """Add a command to the list of whoever listens in this context."""
    if (commands := _commands.get()) is not None:
        commands.append(command)


class CountingConnection(Connection):
    """The driver's connection, telling what it sends."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.prepared: dict[bytes, str] = {}  # by the id with which each execution begins

    async def prepare(self, query: bytes | str) -> PreparedStatement:
        statement = await super().prepare(query)
        text = query.decode() if isinstance(query, bytes) else query
        self.prepared[statement._statement_id.to_bytes(4, "little")] = text
        return statement

    async def _execute_command(self, command: Any, sql: Any) -> Any:
        if command in {COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE}:
            note(self.prepared[sql[:4]])
        elif command == COM_STMT_PREPARE:
            if _preparing.get():
                note("PREPARE")
        elif command != COM_STMT_CLOSE:  # which the server does not answer
            note(sql.decode(errors="replace") if isinstance(sql, bytes) else str(sql))
        return await super()._execute_command(command, sql)


def count_on_sqlite(engines: Engines, patch: pytest.MonkeyPatch) -> None:
    """Note statements, commits and rollbacks of SQLite engines."""
    execute = aiosqlite.Cursor.execute

    async def counting(cursor: aiosqlite.Cursor, sql: str, parameters: Any = None) -> aiosqlite.Cursor:
        if not sql.startswith("PRAGMA"):  # a connection's preparation, which a wire would not show either
            note(sql)
        return await execute(cursor, sql, parameters)

    patch.setattr(aiosqlite.Cursor, "execute", counting)
    for name in ("commit", "rollback"):
        event.listen(engines.writer.sync_engine, name, lambda _connection, name=name: note(name.upper()))
