"""Migration steps that can be run again.

MariaDB and MySQL commit after each statement that changes a table, so a migration that was killed has done a part of
its work. The next run does the rest: a step whose result exists already does nothing.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError


class ForeignTableError(CommandError):
    """A table with this name exists, and no migration of Latchkey created it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the table {name} exists already, with other columns than Latchkey's: give Latchkey its own database."
        )


def columns_of(table: str) -> frozenset[str]:
    """Return the names of a table's columns; none when there is no such table."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(table):
        return frozenset()
    return frozenset(column["name"] for column in inspector.get_columns(table))


def create_table(name: str, *elements: Any, **options: Any) -> None:
    """Create a table.

    Raises:
        ForeignTableError: a table with this name and other columns exists.
    """
    found = columns_of(name)
    if not found:
        op.create_table(name, *elements, **options)
    elif found != {one.name for one in elements if isinstance(one, sa.Column)}:
        raise ForeignTableError(name)


def drop_table(name: str) -> None:
    """Drop a table."""
    if columns_of(name):
        op.drop_table(name)


def create_index(name: str, table: str, columns: list[str], *, unique: bool = False) -> None:
    """Create an index."""
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns, unique=unique)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column."""
    if column.name not in columns_of(table):
        op.add_column(table, column)


def has_unique_constraint(name: str, table: str) -> bool:
    """Return whether a table has the unique constraint."""
    return name in {one["name"] for one in sa.inspect(op.get_bind()).get_unique_constraints(table)}
