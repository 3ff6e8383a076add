"""The command `latchkey usage`."""

import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import get_args

import click
import msgspec

from latchkey.models import ApiKey
from latchkey.service.commands.answers import aligned, cell
from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.parameters import ACCESS_KEY, WHEN, as_json
from latchkey.service.commands.rows import opened, work
from latchkey.service.rule_error import RuleError
from latchkey.service.usage.periods import Range, range_of
from latchkey.service.usage.reading import as_csv, read_usage
from latchkey.service.usage.shapes import By, Group, UsageReport, UsageRow

FORMS: dict[By, str] = {"minute": "%Y-%m-%d %H:%M", "hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}
WIDEST_BAR, NARROWEST_BAR = 60, 10  # columns of the terminal


@click.command()
@click.argument("access_key", metavar="[ACCESS_KEY]", type=ACCESS_KEY, required=False)
@click.option("--from", "start", type=WHEN, help="The start; by default 60 minutes, 24 hours or 30 days ago.")
@click.option("--to", "end", type=WHEN, help="The end; by default, now.")
@click.option(
    "--by", type=click.Choice(get_args(By)), default="day", show_default=True, help="The length of a period."
)
@click.option("--group", type=click.Choice(get_args(Group)), help="Divide the calls of each period.")
@click.option("--csv", "is_csv", is_flag=True, help="Print CSV.")
@as_json
@for_application
def usage(
    *,
    access_key: str | None,
    start: datetime | None,
    end: datetime | None,
    by: By,
    group: Group | None,
    is_csv: bool,
    as_json: bool,
) -> None:
    """Show the calls of a key by period, or of all keys and all calls without one."""
    if as_json and is_csv:
        raise click.UsageError("give one of --json and --csv.")
    try:
        report = work(find_usage(access_key, range_of(start, end, by, datetime.now(UTC)), group))
    except RuleError as error:
        raise click.UsageError(f"--from: {error.reason}.") from None
    if as_json:
        click.echo(msgspec.json.encode(report))
    elif is_csv:
        click.echo(as_csv(report), nl=False)
    else:
        click.echo(drawn(report, width=shutil.get_terminal_size().columns, bar=bar_of(sys.stdout.encoding)))


async def find_usage(access_key: str | None, asked: Range, group: Group | None) -> UsageReport:
    """Return the usage of one key or of everything."""
    async with opened(application_settings()) as session:
        keys: Sequence[int] | None = None
        if access_key is not None:
            key = await ApiKey.filter_by(access_key=access_key).first()
            if key is None:
                raise click.ClickException(f"there is no key {access_key}.")
            keys = [key.id]
        return await read_usage(session, keys, asked, group)


def bar_of(encoding: str) -> str:
    """Return the character of a bar that an encoding has."""
    try:
        "█".encode(encoding)
    except UnicodeEncodeError:
        return "#"
    return "█"


def drawn(report: UsageReport, *, width: int, bar: str) -> str:
    """Return the rows of a report with a bar for the calls of each, and the total below."""
    table = [
        [row.start.strftime(FORMS[row.period]), *group_of(report, row), str(row.calls), str(row.units)]
        for row in report.data
    ]
    header = ["start (UTC)", *([report.group] if report.group else []), "calls", "units"]
    total = ["total", *([""] if report.group else []), str(report.calls), str(report.units)]
    lines = aligned([header, *table, total]).split("\n")
    columns = max(map(len, lines))
    room = min(max(width - columns - 2, NARROWEST_BAR), WIDEST_BAR)
    most = max((row.calls for row in report.data), default=1)
    for place, row in enumerate(report.data, start=1):
        lines[place] = f"{lines[place].ljust(columns)}  {bar * max(1, round(room * row.calls / most))}"
    return "\n".join(lines)


def group_of(report: UsageReport, row: UsageRow) -> list[str]:
    """Return the cell of the group of a row; none without a group."""
    match report.group:
        case None:
            return []
        case "status":
            return [f"{row.status} {row.code or ''}".strip()]
        case named:
            return [cell(getattr(row, named))]
