"""Models whose changes leave an event in the audit log."""

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import inspect

CREATED, CHANGED, DELETED = "created", "changed", "deleted"
ROTATED = "rotated"
EXPOSED = "exposed"


class Audited:
    """A mixin for a model, each of whose changes by a flush is recorded in the transaction of the change.

    Statements that bypass the flush record nothing: the code that sends them records their change itself.
    """

    audit_noun: ClassVar[str]
    """The first part of the actions, such as `user` in `user.created`, and the kind of their target."""

    unaudited: ClassVar[frozenset[str]] = frozenset()
    """The columns that are never recorded. A change of these columns alone is no event."""

    personal: ClassVar[frozenset[str]] = frozenset()
    """The columns that hold personal data of the owner, which are erased on request, also in the audit log."""

    @property
    def audit_id(self) -> str:
        """Return the public identifier of the row."""
        return str(inspect(self).identity[0])

    @classmethod
    def audit_verb(cls, after: Mapping[str, Any]) -> str:
        """Return the second part of the action, for a change of a row that existed and still exists.

        Args:
            after: the new values of the columns that changed.
        """
        del after
        return CHANGED
