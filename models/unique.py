"""Insert a row that several callers may insert at once."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Table, UniqueConstraint, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper


def require_unique(model: type[Any], names: Iterable[str]) -> None:
    """Raise TypeError if no primary key, unique constraint or unique index covers some of these attributes."""
    mapper: Mapper[Any] = inspect(model)
    given = {column for name in names for column in columns_of(mapper, name)}
    if not any(columns and columns <= given for columns in unique_columns(mapper)):
        raise TypeError(
            f"{model.__name__}.get_or_create: no unique constraint covers {', '.join(names) or 'no attribute'}, so "
            "two calls at once could create two rows: add a UniqueConstraint, and pass the other attributes as defaults=."
        )


def columns_of(mapper: Mapper[Any], name: str) -> Iterable[Any]:
    """Return the columns that an attribute determines."""
    if name in mapper.relationships:
        return mapper.relationships[name].local_columns
    return mapper.column_attrs[name].columns if name in mapper.column_attrs else ()


def unique_columns(mapper: Mapper[Any]) -> Iterable[set[Any]]:
    """Return the sets of columns that identify a row."""
    for table in mapper.tables:
        if isinstance(table, Table):
            yield set(table.primary_key.columns)
            yield from (set(one.columns) for one in table.constraints if isinstance(one, UniqueConstraint))
            yield from (set(one.columns) for one in table.indexes if one.unique)


async def insert_or_find(
    model: type[Any], attributes: Mapping[str, Any], values: Mapping[str, Any], session: AsyncSession
) -> tuple[Any, bool]:
    """Insert a row in a SAVEPOINT; if another transaction has inserted it meanwhile, return that row.

    Returns:
        the row, and whether it was inserted.
    """
    await session.flush()  # errors of earlier changes are not the row's
    try:
        async with session.begin_nested():
            row = model(**attributes)
            await row._write(session, auto_commit=False, refresh=None)  # noqa: SLF001 - a verb of the model
            return row, True
    except IntegrityError:
        found = await model.filter(session=session, **values).first()
        if found is None:
            raise
        return found, False
