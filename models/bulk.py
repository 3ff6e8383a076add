"""UPDATE and DELETE of many rows with one statement, with the same meaning on every server."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    Alias,
    ClauseElement,
    ColumnElement,
    Delete,
    Select,
    Table,
    Update,
    delete,
    inspect,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql import visitors

from latchkey.models.bounds import fitted
from latchkey.models.errors import BulkError
from latchkey.models.lookups import column_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Rows(msgspec.Struct, frozen=True):
    """The rows that a verb changes."""

    verb: str
    model: Any
    where: ColumnElement[bool] | None
    session: "AsyncSession | None"


async def update_rows(rows: Rows, values: Mapping[str, Any], *, auto_commit: bool) -> int:
    """Change rows, and return their number."""
    if not values:
        raise BulkError("update() needs at least one value.")
    columns = {name: column_of(rows.model, name) for name in values}
    for name, value in values.items():
        require_independent(name, value, columns)
    values = {**values, **fitted(inspect(rows.model), values)}
    return await run(
        rows,
        update(rows.model).values({columns[name]: value for name, value in values.items()}),
        auto_commit=auto_commit,
    )


async def delete_rows(rows: Rows, *, auto_commit: bool) -> int:
    """Delete rows, and return their number."""
    return await run(rows, delete(rows.model), auto_commit=auto_commit)


async def run(rows: Rows, statement: Update | Delete, *, auto_commit: bool) -> int:
    """Execute a statement on the session of the rows, after its pending changes."""
    model = rows.model
    what = f"{model.__name__}.{rows.verb}"
    if model.has_after_commit():
        raise BulkError(
            f"{what}: the model has an after-commit hook, which does not run for many rows at once: change them one by "
            f"one, or use sqlalchemy.{rows.verb}({model.__name__}) if the hook must not run."
        )
    model._guard_write(what, rows.session, auto_commit=auto_commit)  # noqa: SLF001 - a verb of the model
    async with model.resolve(rows.session) as session:
        await session.flush()
        holds = any(isinstance(one, model) for one in session.identity_map.values())
        if rows.where is not None:
            statement = statement.where(outside_of_itself(model, rows.where))
        options = {"synchronize_session": "auto" if holds else False}
        found: int = (await session.execute(statement, execution_options=options)).rowcount
        if auto_commit:
            await session.commit()
    return found


def require_independent(name: str, value: Any, columns: Mapping[str, Any]) -> None:
    """Raise an error for a value that reads a column that the same UPDATE changes.

    MariaDB and MySQL would read its new value, and SQLite, like standard SQL, its old one.
    """
    if not isinstance(value, ClauseElement) and not hasattr(value, "__clause_element__"):
        return
    read = {
        one.key
        for one in visitors.iterate(inspect_clause(value))
        if isinstance(one, ColumnElement) and hasattr(one, "table")
    }
    for other, column in columns.items():
        if other != name and column.expression.key in read:
            raise BulkError(
                f"update({name}=…): the value reads {other!r}, which changes too; some servers would read its new value."
            )


def inspect_clause(value: Any) -> ClauseElement:
    """Return the SQL expression of a value."""
    found: ClauseElement = value.__clause_element__() if hasattr(value, "__clause_element__") else value
    return found


def outside_of_itself(model: Any, where: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return a condition that no server refuses because a subquery reads the table that changes (MySQL's error 1093).

    The rows are then found by a derived table first; DISTINCT keeps MySQL from merging it into the statement.
    """
    table = inspect(model).local_table
    inner = (one for one in visitors.iterate(where) if isinstance(one, Select))
    if not any(reads(one, table) for one in inner):
        return where
    keys = inspect(model).primary_key
    found = select(*keys).where(where).distinct().subquery()
    return keys[0].in_(select(found)) if len(keys) == 1 else tuple_(*keys).in_(select(found))


def reads(found: Select[Any], table: Any) -> bool:
    """Return whether a subquery selects from a table, possibly by another name."""
    return any(
        one is table or (isinstance(one, Alias) and one.element is table)
        for source in found.get_final_froms()
        for one in visitors.iterate(source)
        if isinstance(one, Table | Alias)
    )
