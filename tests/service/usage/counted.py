"""The counts in the database, as tests compare them."""

from collections import Counter

from sqlalchemy import select
from starlette.applications import Starlette

from latchkey.models import UsageCount, UsageSeries
from latchkey.service.usage.counting import Usage


def usage_of(app: Starlette) -> Usage:
    """Return the counter of an application."""
    usage: Usage = app.state.latchkey.usage
    return usage


async def stored(app: Starlette, key_id: int | None = None) -> Counter[tuple[str, int, str, str]]:
    """Return the number of calls by route, status, code and tags, of all periods."""
    found: Counter[tuple[str, int, str, str]] = Counter()
    for route, status, code, tags, calls, _ in await rows(app, key_id):
        found[route, status, code, tags] += calls
    return found


async def rows(app: Starlette, key_id: int | None = None) -> list[tuple[str, int, str, str, int, int]]:
    """Return every row with its series: route, status, code, tags, calls and units."""
    columns = (UsageSeries.route, UsageSeries.status, UsageSeries.code, UsageSeries.tags)
    statement = select(*columns, UsageCount.calls, UsageCount.units).join(
        UsageSeries, UsageSeries.id == UsageCount.series_id
    )
    if key_id is not None:
        statement = statement.where(UsageCount.key_id == key_id)
    async with app.state.db.reader.connect() as connection:
        return [tuple(row) for row in await connection.execute(statement)]
