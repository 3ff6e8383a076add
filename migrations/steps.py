"""Migration steps that can be run again, and that work on MariaDB, MySQL and SQLite.

They have the names and arguments of Alembic's operations.
MariaDB and MySQL commit after each statement that changes a table, so a migration that was killed has done a part of
its work. The next run does the rest: a step whose result exists already does nothing.
SQLite cannot change a column or a constraint. There, a step copies the table; the rows stay.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations
from alembic.util import CommandError

__all__ = [
    "add_column",
    "alter_column",
    "create_foreign_key",
    "create_index",
    "create_table",
    "create_unique_constraint",
    "drop_column",
    "drop_constraint",
    "drop_index",
    "drop_table",
]


class ForeignTableError(CommandError):
    """A table with this name exists, and no migration of this history created it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the table {name} exists already, with other columns than those of the migration: use a database that no "
            "other software uses, or rename one of the two tables."
        )


def inspector() -> sa.Inspector:
    """Return an inspector of the database, without what an earlier one has read."""
    found: sa.Inspector = sa.inspect(op.get_bind())
    return found


def columns_of(table: str) -> frozenset[str]:
    """Return the names of a table's columns; none when there is no such table."""
    look = inspector()
    if not look.has_table(table):
        return frozenset()
    return frozenset(column["name"] for column in look.get_columns(table))


def constraints_of(table: str) -> frozenset[str | None]:
    """Return the names of a table's constraints, its primary key included."""
    look = inspector()
    found: list[Any] = [
        look.get_pk_constraint(table),
        *look.get_unique_constraints(table),
        *look.get_foreign_keys(table),
        *look.get_check_constraints(table),
    ]
    return frozenset(one.get("name") for one in found)


def indexes_of(table: str) -> frozenset[str | None]:
    """Return the names of a table's indexes."""
    return frozenset(index["name"] for index in inspector().get_indexes(table))


def has_unique_constraint(name: str, table: str) -> bool:
    """Return whether a table has the unique constraint."""
    return name in {one["name"] for one in inspector().get_unique_constraints(table)}


def change(table: str, do: Callable[[BatchOperations], Any]) -> None:
    """Change a table in place; on SQLite, copy it, with its CHECK constraints, which Alembic would drop."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    kept = inspector().get_check_constraints(table) if sqlite else []
    checks = tuple(sa.CheckConstraint(one["sqltext"], name=one["name"]) for one in kept)
    with op.batch_alter_table(table, table_args=checks) as batch:
        do(batch)


def create_table(name: str, *elements: Any, **options: Any) -> None:
    """Create a table; a table with this name and other columns is refused, because other software has created it."""
    found = columns_of(name)
    if not found:
        op.create_table(name, *elements, **options)
    elif found != {one.name for one in elements if isinstance(one, sa.Column)}:
        raise ForeignTableError(name)


def drop_table(name: str) -> None:
    """Drop a table."""
    if columns_of(name):
        op.drop_table(name)


def create_index(name: str, table: str, columns: list[Any], *, unique: bool = False, **options: Any) -> None:
    """Create an index."""
    if name not in indexes_of(table):
        op.create_index(name, table, columns, unique=unique, **options)


def drop_index(name: str, *, table_name: str, **options: Any) -> None:
    """Drop an index."""
    if name in indexes_of(table_name):
        op.drop_index(name, table_name=table_name, **options)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column. One that is not nullable needs a `server_default`, which existing rows get."""
    if column.name not in columns_of(table):
        op.add_column(table, column)


def drop_column(table: str, name: str) -> None:
    """Drop a column."""
    if name in columns_of(table):
        change(table, lambda batch: batch.drop_column(name))


def alter_column(table: str, name: str, **changes: Any) -> None:
    """Change a column."""
    change(table, lambda batch: batch.alter_column(name, **changes))


def create_unique_constraint(name: str, table: str, columns: list[str]) -> None:
    """Create a unique constraint."""
    if not has_unique_constraint(name, table):
        change(table, lambda batch: batch.create_unique_constraint(name, columns))


def create_foreign_key(
    name: str, table: str, referent: str, columns: list[str], referred: list[str], **options: Any
) -> None:
    """Create a foreign key."""
    if name not in constraints_of(table):
        change(table, lambda batch: batch.create_foreign_key(name, referent, columns, referred, **options))


def drop_constraint(name: str, table: str, *, type_: str) -> None:
    """Drop a constraint; `type_` is its kind, such as `unique` or `foreignkey`.

    A foreign key takes the index with it that MariaDB and MySQL have created for it, under its name.
    """
    if name in constraints_of(table):
        change(table, lambda batch: batch.drop_constraint(name, type_=type_))
    if type_ == "foreignkey":
        drop_index(name, table_name=table)
