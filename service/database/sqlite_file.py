"""The identity of an SQLite file: a file that was removed or replaced under the service takes no writes (R4)."""

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.database.private_file import keep_private


class DatabaseFile:
    """The file of a database, as this process opened it first; all engines of the database share this object.

    SQLite goes on writing into a removed file, whose rows nobody finds again, and a new connection would create an empty
    file. While the path does not lead to the first file, every use of the database is an error of SQLite's own kind,
    `SQLITE_READONLY_DBMOVED`.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._identity: tuple[int, int] | None = None

    def attach(self, engine: AsyncEngine) -> None:
        """Check the file when a connection is opened, when it is taken, and before COMMIT."""
        event.listen(engine.sync_engine, "do_connect", self._before_connect)
        for name in ("checkout", "commit"):
            event.listen(engine.sync_engine, name, self._check)
        event.listen(engine.sync_engine, "connect", self._note)

    def _before_connect(self, *connect: Any) -> None:
        self._check()
        keep_private(*connect)

    def _note(self, *_connect: Any) -> None:
        if self._identity is None:
            self._identity = self._found()

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - a Path would cost each call twice as much
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _check(self, *_event: Any) -> None:
        if self._identity is None or self._found() == self._identity:
            return
        error = sqlite3.OperationalError(
            f"the database file {self._path} was removed or replaced: restore it, or restart the service"
        )
        error.sqlite_errorname = "SQLITE_READONLY_DBMOVED"
        raise error
