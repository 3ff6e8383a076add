"""The revisions of a team, checked before any of them runs."""

import warnings

from alembic.script import ScriptDirectory
from alembic.util import CommandError


def fault_of(scripts: ScriptDirectory) -> str | None:
    """Return why the revisions of a folder cannot be run in order, as a sentence without its full stop; None if they can.

    Alembic only warns about two files with the same revision id, and then runs one of them and marks both as done.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Revision ", category=UserWarning)
        try:
            found = list(scripts.walk_revisions())
        except (CommandError, UserWarning) as error:
            return str(error).rstrip(".")
    for one in found:
        if not callable(getattr(one.module, "upgrade", None)):
            return f"the revision {one.revision} has no function upgrade()"
    return None if found else "it contains no revision"
