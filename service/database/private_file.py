"""The file of an SQLite database, which only its owner may read: it holds personal data and sealed secrets."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

BESIDE = ("", "-wal", "-shm", "-journal")
OWNER = 0o600  # to read and write
EVERYBODY = 0o007


def keep_private(_dialect: Any, _record: Any, arguments: list[Any], _options: dict[str, Any]) -> None:
    """Create the file that is about to be opened, or close it to everybody else; for the event `do_connect`.

    SQLite gives the files that it makes beside a database the mode of the database. A file that everybody may read
    or write was made by a release before, or by hand; one that is open to its group only was meant so, and stays.
    What cannot be done is left to SQLite, which says better what is wrong with the path.
    """
    path = Path(arguments[0])
    try:
        # Only a new file: to close one that SQLite has open would take all locks of this process off it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER))
    except FileExistsError:
        for one in BESIDE:
            with contextlib.suppress(OSError):
                restrict(path.with_name(path.name + one))
    except OSError:
        return


def restrict(path: Path) -> None:
    """Close a file that everybody may use to all but its owner."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & EVERYBODY:
        path.chmod(mode & OWNER)
