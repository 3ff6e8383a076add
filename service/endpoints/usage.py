"""The usage of keys: `/v1/keys/{access_key}/usage` and `/v1/me/usage`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from starlette.requests import Request

from latchkey.models import ApiKey
from latchkey.service import clock
from latchkey.service.authentication.principal import Principal
from latchkey.service.keys.rules import named
from latchkey.service.operation import Answer, Text
from latchkey.service.problems import or_not_found, wrong_parameter
from latchkey.service.rule_error import RuleError
from latchkey.service.usage.periods import range_of
from latchkey.service.usage.reading import as_csv, read_usage
from latchkey.service.usage.shapes import MyUsageQuery, UsageQuery

CSV = "text/csv"


async def read_key_usage(request: Request, access_key: str, query: UsageQuery) -> Answer:
    """Read the usage of a key, by minute, hour or day.

    The counts are a few seconds late. Old ones are kept by hour, and later by day: such a row has a longer `period`, and
    belongs to the range in which it begins. `format=csv` returns the rows as CSV.
    """
    return await report(request, [or_not_found(await named(access_key).first()).id], query)


async def read_my_usage(request: Request, caller: Principal, query: MyUsageQuery) -> Answer:
    """Read the usage of the keys of the caller's owner, all together or of one key, by minute, hour or day.

    The counts are a few seconds late. Old ones are kept by hour, and later by day: such a row has a longer `period`, and
    belongs to the range in which it begins. `format=csv` returns the rows as CSV.
    """
    if query.access_key is not None:
        key = await named(query.access_key, caller.user.id).first()
        return await report(request, [or_not_found(key).id], query)
    return await report(request, select(ApiKey.id).where(ApiKey.user_id == caller.user.id), query)


async def report(request: Request, keys: Select[Any] | Sequence[int], query: UsageQuery) -> Answer:
    """Return the usage of keys, as JSON or CSV."""
    try:
        asked = range_of(query.from_, query.to, query.by, clock.now())
        content = await read_usage(request.state.session, keys, asked, query.group)
    except RuleError as error:
        raise wrong_parameter("from", error.reason) from None
    return Answer(content=Text(content=as_csv(content), media_type=CSV) if query.format == "csv" else content)
