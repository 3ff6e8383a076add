"""Read the usage of keys: calls by period, and by route, status or tag."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import ColumnElement, Select, Table, case, func, literal, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from latchkey.models import UsageCount, UsageSeries
from latchkey.models.usage import DAY, HOUR, MINUTE
from latchkey.service.rule_error import RuleError
from latchkey.service.usage.periods import NAMES, Range, moment_of
from latchkey.service.usage.shapes import Group, UsageReport, UsageRow

MOST_ROWS = 20_000

_counts = cast("Table", UsageCount.__table__)
_series = cast("Table", UsageSeries.__table__)

COLUMNS: dict[Group | None, tuple[ColumnElement[Any], ...]] = {
    None: (),
    "route": (_series.c.route,),
    "status": (_series.c.status, _series.c.code),
    "tag": (_series.c.tags,),
}
CSV_COLUMNS = UsageRow.__struct_fields__


async def read_usage(
    session: AsyncSession, keys: Select[Any] | Sequence[int] | None, asked: Range, group: Group | None
) -> UsageReport:
    """Return the usage of keys, added up.

    Args:
        session: reads it.
        keys: the ids of the keys, or a SELECT of them; None for all calls, also those without a known key.
        asked: the range. A period belongs to the range in which it begins.
        group: what the calls of a period are grouped by.

    Raises:
        RuleError: the range has too many rows.
    """
    found = (await session.execute(statement_of(keys, asked, group))).all()
    if len(found) > MOST_ROWS:
        raise RuleError(f"the range has more than {MOST_ROWS} rows: ask for a shorter one", "from")
    rows = [row_of(group, *row) for row in found]
    return UsageReport(
        from_=moment_of(asked.start),
        to=moment_of(asked.end),
        by=NAMES[asked.length],
        group=group,
        calls=sum(row.calls for row in rows),
        units=sum(row.units for row in rows),
        data=by_single_tag(rows) if group == "tag" else rows,
    )


def statement_of(keys: Select[Any] | Sequence[int] | None, asked: Range, group: Group | None) -> Select[Any]:
    """Return the query: the length of a period, its start, the columns of the group, calls and units."""
    length = case((_counts.c.minutes < asked.length, literal(asked.length)), else_=_counts.c.minutes)
    start = _counts.c.start - _counts.c.start % asked.length
    columns = (length.label("length"), start.label("begin"), *COLUMNS[group])
    of_keys: ColumnElement[bool] = true() if keys is None else _counts.c.key_id.in_(keys)
    return (
        select(*columns, func.sum(_counts.c.calls), func.sum(_counts.c.units))
        .join_from(_counts, _series, _series.c.id == _counts.c.series_id)
        .where(
            _counts.c.minutes.in_((MINUTE, HOUR, DAY)),
            of_keys,
            _counts.c.start >= asked.start,
            _counts.c.start < asked.end,
        )
        .group_by(*columns)
        .order_by(start, *COLUMNS[group], length)
        .limit(MOST_ROWS + 1)
    )


def row_of(group: Group | None, length: int, start: int, *values: Any) -> UsageRow:
    """Return the row of the response for one of the query; `tag` still has all tags."""
    *grouped, calls, units = values
    named = dict(zip((column.key for column in COLUMNS[group]), grouped, strict=True))
    return UsageRow(
        start=moment_of(start),
        period=NAMES[length],
        route=named.get("route"),
        status=named.get("status"),
        code=named.get("code") or None,
        tag=named.get("tags") or None,
        calls=int(calls),
        units=int(units),
    )


def by_single_tag(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """Return rows in which each call is counted under each of its tags."""
    found: dict[tuple[Any, ...], UsageRow] = {}
    for row in rows:
        for tag in (row.tag or "").split(" "):
            place = (row.start, tag, row.period)
            before = found.get(place)
            found[place] = msgspec.structs.replace(
                row,
                tag=tag or None,
                calls=row.calls + (before.calls if before else 0),
                units=row.units + (before.units if before else 0),
            )
    return [found[place] for place in sorted(found)]


def as_csv(report: UsageReport) -> str:
    """Return the rows of a report as CSV (RFC 4180), with a header line; null is an empty field."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(CSV_COLUMNS)
    for row in report.data:
        values = msgspec.to_builtins(row)
        writer.writerow([values[name] for name in CSV_COLUMNS])
    return written.getvalue()
