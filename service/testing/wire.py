"""The commands on the wire: every command that a connection sends, counted exactly.

On MariaDB a subclass of the driver's connection counts in the single method that sends all commands; SQLAlchemy's
events would cover about half of them. SQLite has no wire, so statements are counted.

A prepared statement is recorded by its text each time it is executed. Preparing it happens once more for each
connection, and is recorded only with `preparing=True`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import aiosqlite
import pytest
from asyncmy.constants.COMMAND import COM_STMT_CLOSE, COM_STMT_EXECUTE, COM_STMT_PREPARE
from sqlalchemy import Engine, event

from latchkey.service.database.driver import Connection

BEGIN_ON_SQLITE = "BEGIN IMMEDIATE"  # a server needs no command for it
COM_STMT_BULK_EXECUTE = 0xFA  # a command of MariaDB; the driver uses it without a name

_commands: ContextVar[list[str] | None] = ContextVar("commands", default=None)
_preparing: ContextVar[bool] = ContextVar("preparing", default=False)


@contextmanager
def listening(*, preparing: bool = False) -> Iterator[list[str]]:
    """Collect the commands of this context and of tasks that it starts."""
    commands: list[str] = []
    tokens = _commands.set(commands), _preparing.set(preparing)
    try:
        yield commands
    finally:
        _commands.reset(tokens[0])
        _preparing.reset(tokens[1])


def note(command: str) -> None:
    """Add a command to the list of the listener in this context."""
    if (commands := _commands.get()) is not None:
        commands.append(command)


class CountingConnection(Connection):
    """The driver's connection, which records its commands."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)  # type: ignore[no-untyped-call]
        self.prepared: dict[bytes, str] = {}  # by the id at the start of each execution

    async def prepare(self, query: bytes | str) -> Any:
        statement: Any = await super().prepare(query)
        text = query.decode() if isinstance(query, bytes) else query
        self.prepared[statement._statement_id.to_bytes(4, "little")] = text  # noqa: SLF001 - no public name
        return statement

    async def _execute_command(self, command: Any, sql: Any) -> Any:
        if command in {COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE}:
            note(self.prepared[sql[:4]])
        elif command == COM_STMT_PREPARE:
            if _preparing.get():
                note("PREPARE")
        elif command != COM_STMT_CLOSE:  # the server does not answer it
            note(sql.decode(errors="replace") if isinstance(sql, bytes) else str(sql))
        return await super()._execute_command(command, sql)


def count_on_sqlite(writer: Engine, patch: pytest.MonkeyPatch) -> None:
    """Record the statements on SQLite, and the commits and rollbacks of its transactional engine."""
    execute = aiosqlite.Cursor.execute

    async def counting(cursor: aiosqlite.Cursor, sql: str, parameters: Any = None) -> aiosqlite.Cursor:
        if not sql.startswith("PRAGMA"):  # the setup of a connection, which a wire would not show either
            note(sql)
        return await execute(cursor, sql, parameters)

    patch.setattr(aiosqlite.Cursor, "execute", counting)
    for name in ("commit", "rollback"):
        event.listen(writer, name, lambda _connection, name=name: note(name.upper()))
