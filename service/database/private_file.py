"""The file of an SQLite database, which only its owner may read: it contains personal data and sealed secrets."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

BESIDE = ("", "-wal", "-shm", "-journal")
OWNER = 0o600  # read and write
EVERYBODY = 0o007


def keep_private(_dialect: Any, _record: Any, arguments: list[Any], _options: dict[str, Any]) -> None:
    """Create the database file with the owner's permissions only, or remove those of all other users; for `do_connect`.

    SQLite gives the files beside a database the permissions of the database. A file that every user may read or write was
    created by an earlier release, or by hand. Access for the group only is intentional, and kept. Errors are left to
    SQLite, whose message explains better what is wrong with the path.
    """
    path = Path(arguments[0])
    try:
        # Only for a new file: closing a file that SQLite has open would release all locks of this process on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER))
    except FileExistsError:
        for one in BESIDE:
            with contextlib.suppress(OSError):
                restrict(Path(f"{path}{one}"))
    except OSError:
        return


def restrict(path: Path) -> None:
    """Remove all permissions but the owner's from a file that every user may access."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & EVERYBODY:
        path.chmod(mode & OWNER)
