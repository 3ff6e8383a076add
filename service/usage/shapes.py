"""The types of the queries and responses about usage."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from latchkey.service.shapes import Input, Moment, Output

By = Literal["minute", "hour", "day"]
Group = Literal["route", "status", "tag"]
Format = Literal["json", "csv"]

From = Annotated[
    datetime,
    Meta(
        tz=True,
        description="The start of the range, rounded down to a whole period; send the `+` of an offset as `%2B`. "
        "By default the range has 60 minutes, 24 hours or 30 days.",
    ),
]
To = Annotated[
    datetime,
    Meta(
        tz=True,
        description="The end of the range, which is not part of it, rounded up to a whole period; by default, now.",
    ),
]


class UsageQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/keys/{access_key}/usage`."""

    from_: From | None = msgspec.field(name="from", default=None)
    to: To | None = None
    by: Annotated[By, Meta(description="The length of the periods, which begin at whole ones in UTC.")] = (
        "day"
    )
    group: Annotated[Group, Meta(description="What the calls of a period are grouped by.")] | None = None
    format: Format = "json"


class MyUsageQuery(UsageQuery, frozen=True, kw_only=True):
    """The query of `GET /v1/me/usage`; without `access_key`, the usage of all keys of the caller's owner is added up."""

    access_key: Annotated[str, Meta(max_length=64)] | None = None


class UsageRow(Output, frozen=True, kw_only=True):
    """The calls of one period, and of one group.

    `period` is longer than the requested one if the counts have been rolled up since. Only the fields that belong to the
    requested group are set.
    """

    start: Moment
    period: By
    route: str | None
    status: int | None
    code: str | None
    tag: str | None
    calls: int
    units: int


class UsageReport(Output, frozen=True, kw_only=True):
    """The calls of a range, and the units that they were charged, in total and by period.

    A call with several tags is in the row of each of them, and once in the totals.
    """

    from_: Moment = msgspec.field(name="from")
    to: Moment
    by: By
    group: Group | None
    calls: int
    units: int
    data: list[UsageRow]
