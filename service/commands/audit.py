"""The commands `latchkey audit …`."""

from collections.abc import Callable
from datetime import datetime
from typing import TextIO

import click

from latchkey.service.audit.export import exported, json_line, syslog_line
from latchkey.service.audit.seal import Head
from latchkey.service.audit.sealer import read_heads
from latchkey.service.audit.shapes import AuditEvent, Period
from latchkey.service.audit.verification import Report, Verification
from latchkey.service.authentication.keyring import open_keyring
from latchkey.service.commands.application import application_settings, for_application
from latchkey.service.commands.parameters import WHEN
from latchkey.service.commands.rows import opened, work
from latchkey.service.database import SQLAlchemy

FORMS: dict[str, Callable[[AuditEvent], str]] = {"json": json_line, "syslog": syslog_line}


@click.group()
def audit() -> None:
    """Verify and export the audit log."""


@audit.command()
@click.option(
    "--head",
    type=click.File(encoding="utf-8"),
    help="A file with heads that were stored outside of the database, as LATCHKEY_AUDIT_HEAD_PATH and the log have them.",
)
@for_application
def verify(head: TextIO | None) -> None:
    """Verify that no sealed event was changed, removed or moved.

    The command prints a line for each fault, and the number of events. It needs every key of the key ring that has sealed
    an event. The exit status is 1 if there is a fault.
    """
    report = work(verified([] if head is None else heads_of(head)))
    for fault in report.faults:
        click.echo(fault)
    click.echo(f"{report.sealed} events are sealed, {report.unsealed} are not sealed yet.")
    if report.erased:
        click.echo(
            f"{report.erased} of them are without personal data, which `latchkey users erase` has erased."
        )
    if report.faults:
        raise click.ClickException(f"the audit log has faults: {len(report.faults)}.")


async def verified(outside: list[Head]) -> Report:
    """Verify the audit log."""
    settings = application_settings()
    keyring = open_keyring(settings)
    async with opened(settings, keyring), SQLAlchemy().reader.connect() as connection:
        return await Verification(keyring, outside).run(connection)


def heads_of(file: TextIO) -> list[Head]:
    """Return the heads in a file, or raise an error that names its wrong line."""
    try:
        return read_heads(file.read())
    except ValueError as error:
        raise click.BadParameter(f"{file.name}: {error}.", param_hint="'--head'") from None


@audit.command()
@click.option("--from", "start", type=WHEN, help="Only events at this time or later.")
@click.option("--to", "end", type=WHEN, help="Only events before this time.")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMS)),
    default="json",
    show_default=True,
    help="JSON lines, or messages of RFC 5424.",
)
@for_application
def export(start: datetime | None, end: datetime | None, form: str) -> None:
    """Print the events, oldest first, one in each line."""
    work(print_events(Period(start, end), FORMS[form]))


async def print_events(period: Period, line_of: Callable[[AuditEvent], str]) -> None:
    """Print the events of a period."""
    async with opened(application_settings()):
        async for event in exported(period):
            click.echo(line_of(event))
