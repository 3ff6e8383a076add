"""`latchkey migrate` in a process of its own, which kills itself at a point of the migration.

    python -m tests.models.migrating FILE        write the name of each point to FILE
    python -m tests.models.migrating FILE 7      the same, and die at point 7 by SIGKILL

A point is before or after a statement that changes something, or before a COMMIT.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from latchkey.service.commands import latchkey

# Statements that only read or set, which a kill cannot leave half done.
LOOKS = ("SELECT", "SHOW", "DESCRIBE", "PRAGMA", "BEGIN", "SET")


def changes(statement: str) -> bool:
    """Return whether a statement changes rows or tables."""
    return not statement.lstrip().upper().startswith(LOOKS)


class Points:
    """The points that the process has passed."""

    def __init__(self, file: Path, death: int | None) -> None:
        self.file = file
        self.death = death
        self.passed = 0

    def watch(self) -> None:
        """Watch all engines."""
        event.listen(Engine, "before_cursor_execute", self.before)
        event.listen(Engine, "after_cursor_execute", self.after)
        event.listen(Engine, "commit", self.commit)

    def before(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if changes(statement):
            self.reach(f"before {statement}")

    def after(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if changes(statement):
            self.reach(f"after {statement}")

    def commit(self, _connection: Any) -> None:
        self.reach("before COMMIT")

    def reach(self, name: str) -> None:
        with self.file.open("a") as file:
            file.write(" ".join(name.split())[:60] + "\n")
        if self.passed == self.death:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1


if __name__ == "__main__":
    Points(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None).watch()
    latchkey(["migrate"], prog_name="latchkey")
