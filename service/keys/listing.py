"""The filters of lists of keys."""

from collections.abc import Sequence

from latchkey.models import ApiKey
from latchkey.models.lookups import Q
from latchkey.models.query import Query
from latchkey.service.keys.holders import contains_word


def filtered(
    rows: Query[ApiKey],
    *,
    status: str | None,
    role: str | None,
    environment: str | None,
    environments: Sequence[str],
) -> Query[ApiKey]:
    """Return the keys that pass all filters; None leaves a filter out.

    Args:
        rows: the keys to choose from.
        status: of the keys.
        role: which the keys have.
        environment: of the keys. A key without one is in the first of `environments`.
        environments: the names of the settings.
    """
    if status is not None:
        rows = rows.filter(status=status)
    if role is not None:
        rows = rows.filter(contains_word(ApiKey.roles, role))
    if environment is not None:
        named = Q(environment=environment)
        rows = rows.filter(named | Q(environment=None) if environment == environments[0] else named)
    return rows
