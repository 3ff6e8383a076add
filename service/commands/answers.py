"""The output of the commands: the endpoint's JSON, or a table for people."""

from collections.abc import Sequence
from typing import Any

import click
import msgspec


def show(row: msgspec.Struct, *, as_json: bool) -> None:
    """Print one row, as JSON or with a line for each field."""
    if as_json:
        click.echo(msgspec.json.encode(row))
        return
    fields = msgspec.to_builtins(row)
    click.echo(aligned([[name, cell(value)] for name, value in fields.items()]))


def show_page(page: msgspec.Struct, columns: Sequence[str], *, as_json: bool) -> None:
    """Print a page of rows, as JSON or as a table of the named columns."""
    if as_json:
        click.echo(msgspec.json.encode(page))
        return
    rows = msgspec.to_builtins(page)["data"]
    click.echo(aligned([list(columns), *([cell(row[name]) for name in columns] for row in rows)]))


def aligned(table: list[list[str]]) -> str:
    """Return the table as text, with its columns aligned and two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Return one value as text."""
    if isinstance(value, list | tuple):
        value = ",".join(map(cell, value))
    if isinstance(value, dict):
        value = " ".join(f"{name}={part}" for name, part in value.items())
    return "-" if value is None or value == "" else str(value)
