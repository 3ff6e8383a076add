"""Limits as clients send them."""

from collections.abc import Sequence

from latchkey.models.limit import RateLimit
from latchkey.service.limits.ledger import QUOTA
from latchkey.service.problems import field_problem


def distinct_limits(limits: Sequence[RateLimit]) -> tuple[RateLimit, ...]:
    """Return limits as they are stored, and refuse names that would not tell them apart."""
    names = [one.name for one in limits]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise field_problem(f"/limits/{place}/name", "the name is there twice")
        if name == QUOTA:
            raise field_problem(f"/limits/{place}/name", "the name is that of the quota")
    return tuple(limits)
