"""The error of a pure rule that a value breaks. Endpoints convert it to a fault in the body, and commands to an invalid option."""

from collections.abc import Sequence


class RuleError(ValueError):
    """A value breaks a rule.

    Args:
        reason: the fault, without a full stop.
        path: leads from the value to its faulty part: positions in lists and names of fields.
    """

    def __init__(self, reason: str, *path: int | str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def item_in(self, items: Sequence[str]) -> str:
        """Return the item of a list that breaks the rule."""
        return next(items[step] for step in self.path if isinstance(step, int))
