"""What the commands print: the endpoint's JSON, or lines for people."""

from collections.abc import Sequence
from typing import Any

import click
import msgspec


def show(row: msgspec.Struct, *, as_json: bool) -> None:
    """Print one row: its JSON, or a line for each field."""
    if as_json:
        click.echo(msgspec.json.encode(row))
        return
    fields = msgspec.to_builtins(row)
    click.echo(aligned([[name, cell(value)] for name, value in fields.items()]))


def show_page(page: msgspec.Struct, columns: Sequence[str], *, as_json: bool) -> None:
    """Print a page of rows: its JSON, or a table of the columns named."""
    if as_json:
        click.echo(msgspec.json.encode(page))
        return
    rows = msgspec.to_builtins(page)["data"]
    click.echo(aligned([list(columns), *([cell(row[name]) for name in columns] for row in rows)]))


def aligned(table: list[list[str]]) -> str:
    """Set the columns below each other, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Write one value."""
    if isinstance(value, list | tuple):
        value = ",".join(map(cell, value))
    if isinstance(value, dict):
        value = " ".join(f"{name}={part}" for name, part in value.items())
    return "-" if value is None or value == "" else str(value)
