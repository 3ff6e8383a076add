"""The rules for the limits of a key or an owner."""

from collections.abc import Sequence

from latchkey.models.limit import Quota, RateLimit
from latchkey.service.limits.balance import CREDITS_NAME
from latchkey.service.limits.ledger import QUOTA_NAME
from latchkey.service.rule_error import RuleError


def distinct_limits(limits: Sequence[RateLimit]) -> tuple[RateLimit, ...]:
    """Return limits in their stored form.

    Raises:
        RuleError: two have the same name, or one has the name of the quota or the credits.
    """
    names = [one.name for one in limits]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise RuleError("the name is given twice", place, "name")
        if name in {QUOTA_NAME, CREDITS_NAME}:
            raise RuleError(f"the name is reserved for the {name}", place, "name")
    return tuple(limits)


def holds_limits(held: tuple[RateLimit, ...], asked: tuple[RateLimit, ...]) -> bool:
    """Return whether every caller within the limits `asked` is also within those of `held`.

    A limit implies another one if it allows the same or less in the same or a longer window.
    """
    return all(
        any(other.limit <= one.limit and other.window_s >= one.window_s for other in asked) for one in held
    )


def holds_quota(held: Quota | None, asked: Quota | None) -> bool:
    """Return whether every caller within the quota `asked` is also within `held`.

    A monthly quota implies a daily one of the same or a larger amount.
    """
    if held is None:
        return True
    return asked is not None and asked.limit <= held.limit and asked.per in {held.per, "month"}
