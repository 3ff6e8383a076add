"""Limits in request bodies."""

from collections.abc import Sequence

from latchkey.models.limit import RateLimit
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
