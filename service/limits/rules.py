"""The rules for the limits of a key or an owner."""

from collections.abc import Sequence

from latchkey.models.limit import Quota, RateLimit
from latchkey.service.limits.ledger import QUOTA
from latchkey.service.problems import field_problem


def distinct_limits(limits: Sequence[RateLimit]) -> tuple[RateLimit, ...]:
    """Return limits in their stored form; raise a problem for names that are not distinct."""
    names = [one.name for one in limits]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise field_problem(f"/limits/{place}/name", "the name is given twice")
        if name == QUOTA:
            raise field_problem(f"/limits/{place}/name", "the name is reserved for the quota")
    return tuple(limits)


def holds(held: tuple[RateLimit, ...], asked: tuple[RateLimit, ...]) -> bool:
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
