"""`prepared(select(…), into=Row)`: any SELECT, compiled once, whose rows become Structs."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import BindParameter, CompoundSelect, Select, TextClause
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import visitors

from latchkey.models.base import Base
from latchkey.models.bounds import require_sendable
from latchkey.models.fields import fields_of, fit_of
from latchkey.models.into import only
from latchkey.models.read_statement import AnySelect, ColumnConversion, MakeReader, ReadStatement
from latchkey.models.structs import Node

S = TypeVar("S", bound=msgspec.Struct)


def prepared(statement: AnySelect, *, into: type[S]) -> "PreparedSelect[S]":
    """Prepare a SELECT whose rows become Structs: `prepared(select(…), into=Row)`, once, beside the function that uses it.

    A field is read from the column with its name or label; other columns are ignored. Values that differ between calls
    are `bindparam`s, passed by name; one with `expanding=True` takes a list for `IN`.

    Args:
        statement: selects columns with names, and no entities, whose loaded attributes the Struct could not know.
        into: the Struct; values are converted to the types of its fields.

    Raises:
        StructError: a field has no default, and no column has its name, or the column has another type.
        TypeError: `statement` is not a SELECT of columns, or `into` is not a Struct.
    """
    return PreparedSelect(statement, into)


class PreparedSelect(Generic[S]):
    """A SELECT that is compiled once for each kind of database, and sent as a prepared statement.

    It uses the same connection as any other SELECT of the session. Create it with `prepared`.
    """

    def __init__(self, statement: AnySelect, into: type[S]) -> None:
        require_columns(statement)
        self._statement: ReadStatement[S] = ReadStatement(statement, reader_maker(statement, into))
        binds = [
            one for one in visitors.iterate(statement) if isinstance(one, BindParameter) and not one.unique
        ]
        self._known = {one.key for one in binds}
        self._required = {one.key for one in binds if one.required}
        if "session" in self._known:
            raise TypeError(
                "bindparam('session'): the verbs have an argument of this name; use another name."
            )

    async def first(self, *, session: AsyncSession | None = None, **values: Any) -> S | None:
        """Return the first row, or None; the SELECT's own LIMIT determines how many rows are read."""
        rows = await self.all(session=session, **values)
        return rows[0] if rows else None

    async def one(self, *, session: AsyncSession | None = None, **values: Any) -> S:
        """Return the only row.

        Raises:
            sqlalchemy.exc.NoResultFound: there is none.
            sqlalchemy.exc.MultipleResultsFound: there is more than one.
            TypeError: a value is missing, or there is no `bindparam` with its name.
        """
        return only(await self.all(session=session, **values))

    async def all(self, *, session: AsyncSession | None = None, **values: Any) -> list[S]:
        """Return all rows.

        Args:
            session: None uses the session of the task, or a new one, as the verbs of models do.
            values: for each `bindparam`, by its name.

        Raises:
            TypeError: a value is missing, or there is no `bindparam` with its name.
            InvalidValueError: a value is an integer of more than 64 bits.
        """
        if missing := self._required - values.keys():
            raise TypeError(f"a value is missing for {', '.join(sorted(missing))}.")
        if unknown := values.keys() - self._known:
            known = ", ".join(sorted(self._known)) or "none"
            raise TypeError(f"there is no bindparam {', '.join(sorted(unknown))}; there are: {known}.")
        for name, value in values.items():
            require_sendable("prepared", name, value)
        async with Base.resolve(session) as work:
            return await self._statement.read(work, values)


def require_columns(statement: Any) -> None:
    """Raise TypeError for anything but a SELECT of columns with names."""
    if not isinstance(statement, Select | CompoundSelect):
        raise TypeError(f"only a SELECT can be prepared, not {type(statement).__name__}.")
    if isinstance(statement, CompoundSelect):
        for part in statement.selects:
            require_columns(getattr(part, "element", part))
        return
    for one in statement.column_descriptions:
        if isinstance(one["expr"], TextClause):
            raise TypeError(
                f"text({one['expr'].text!r}) has no name and no type: use literal_column() and label()."
            )
        if one.get("entity") is not None and one["expr"] is one["entity"]:
            raise TypeError(
                f"select({one['name']}) selects entities: name the columns that the Struct needs."
            )


def reader_maker(statement: AnySelect, struct: type[S]) -> MakeReader[S]:
    """Return a function that makes row readers, given the conversions of the driver's values.

    Raises:
        StructError: a field has no default, and no column has its name, or the column has another type.
    """
    columns = list(statement.exported_columns)
    names = list(statement.exported_columns.keys())
    fields = [field for field in fields_of(struct) if field.name in names or not field.has_default]
    places: list[int] = []
    node = Node(struct, 0, [field.name for field in fields])
    for slot, field in enumerate(fields):
        if field.name not in names:
            raise field.error(f"the SELECT has no column of this name; it has {', '.join(names)}.")
        places.append(names.index(field.name))
        # An outer join may produce NULL for a column that is NOT NULL in its table.
        fit = fit_of(field, columns[places[slot]], may_be_null=True)
        if fit is not None:
            node.fits.append((slot, fit))

    def make_reader(converts: Sequence[ColumnConversion | None]) -> Callable[[Sequence[Any]], S]:
        needed = [(place, converts[place] if converts else None) for place in places]

        def read(row: Sequence[Any]) -> S:
            values = [row[place] if convert is None else convert(row[place]) for place, convert in needed]
            made: S = node.make(values, ())
            return made

        return read

    return make_reader
