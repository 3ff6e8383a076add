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
            ends = sorted(scripts.get_heads())
        except (CommandError, UserWarning) as error:
            return str(error).rstrip(".")
    for one in found:
        if not callable(getattr(one.module, "upgrade", None)):
            return f"the revision {one.revision} has no function upgrade()"
    if len(ends) > 1:
        return (
            f"no revision follows {' or '.join(ends)}, so their order is unknown: set the down_revision of one of them "
            "to the other"
        )
    return None
