"""Queries: `User.filter(...)` and the methods that refine and run them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, TypeVarTuple

import msgspec
from sqlalchemy import ColumnElement, Result, Select, func, inspect, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Mapper, joinedload, selectinload

from latchkey.models.errors import UnknownLookupError
from latchkey.models.into import Into
from latchkey.models.structs import layout_of
from latchkey.models.types import BinaryText

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from latchkey.models.base import Base

M = TypeVar("M", bound="Base")
S = TypeVar("S", bound=msgspec.Struct)
Row = TypeVarTuple("Row")

SEPARATOR = "__"  # between a name and an operator in a lookup

OPERATORS: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column != value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "like": lambda column, value: column.like(value),
    "in": lambda column, value: column.in_(list(value)),
    "not_in": lambda column, value: column.not_in(list(value)),
    "is_null": lambda column, value: column.is_(None) if value else column.is_not(None),
}


def condition(model: type[Any], lookup: str, value: Any) -> ColumnElement[bool]:
    """Convert one lookup, `name__like="a%"`, to a condition; without an operator it means equality.

    Raises:
        UnknownLookupError: there is no such column or operator; the message lists those that exist.
    """
    name, separator, operator = lookup.rpartition(SEPARATOR)
    if not separator:
        name, operator = lookup, ""
    column = column_of(model, name)
    compare = OPERATORS.get(operator or "eq")
    if compare is None:
        raise UnknownLookupError(
            f"{lookup!r}: there is no operator {operator!r}; there are {', '.join(OPERATORS)}."
        )
    if operator == "like" and isinstance(column.type, BinaryText):
        raise UnknownLookupError(f"{lookup!r}: there is no operator 'like' for text that is stored as bytes.")
    return compare(column, value)


def column_of(model: type[Any], name: str) -> InstrumentedAttribute[Any]:
    """Return the column attribute `name`, or raise `UnknownLookupError` with the existing columns."""
    columns = inspect(model).column_attrs.keys()
    if name not in columns:
        raise UnknownLookupError(
            f"{model.__name__} has no column {name!r}; it has {', '.join(sorted(columns))}."
        )
    attribute: InstrumentedAttribute[Any] = getattr(model, name)
    return attribute


def identified(model: type[Any] | Mapper[Any], identities: Sequence[tuple[Any, ...]]) -> ColumnElement[bool]:
    """Convert primary keys, each a tuple of its columns, to a condition."""
    keys: Sequence[ColumnElement[Any]] = inspect(model).primary_key
    if len(keys) == 1:
        return keys[0].in_([value for (value,) in identities])
    return tuple_(*keys).in_(identities)


def relation_option(model: type[Any], name: str) -> Any:
    """Return the loader option for a relation: a join for a relation to one, a second SELECT for a relation to many."""
    relations = inspect(model).relationships
    if name not in relations:
        raise UnknownLookupError(
            f"{model.__name__} has no relation {name!r}; it has {', '.join(sorted(relations.keys())) or 'none'}."
        )
    attribute = getattr(model, name)
    return selectinload(attribute) if relations[name].uselist else joinedload(attribute)


class Query(Generic[M]):
    """A query under construction; each method returns a new one, and the last verb runs it."""

    def __init__(
        self,
        model: type[M],
        statement: Select[M],
        session: "AsyncSession | None",
        at_most: int | None = None,
    ) -> None:
        self._model = model
        self._statement = statement
        self._session = session
        self._at_most = at_most

    def _with(self, statement: Select[M]) -> Self:
        return type(self)(self._model, statement, self._session, self._at_most)

    def filter(self, **lookups: Any) -> Self:
        """Add conditions: `name__like="a%"`, `id__in=[1, 2]`, `created_at__gte=...`; all must hold."""
        return self._with(
            self._statement.where(*(condition(self._model, name, value) for name, value in lookups.items()))
        )

    def order_by(self, *names: str) -> Self:
        """Sort by columns; a leading minus means descending: `order_by("-id", "name")`."""
        return self._with(self._statement.order_by(*(self._order(name) for name in names)))

    def _order(self, name: str) -> Any:
        column = column_of(self._model, name.removeprefix("-"))
        return column.desc() if name.startswith("-") else column.asc()

    def limit(self, rows: int) -> Self:
        """Return at most this many rows."""
        return type(self)(self._model, self._statement, self._session, rows)

    def load(self, *relations: str) -> Self:
        """Load relations with the rows; reading a relation that is not named here raises an error."""
        return self._with(
            self._statement.options(*(relation_option(self._model, name) for name in relations))
        )

    def for_update(self) -> Self:
        """Lock the rows until the transaction ends, and read them again, because a lock on a stale copy is useless."""
        return self._with(
            self._statement.with_for_update(of=self._model).execution_options(populate_existing=True)
        )

    def into(self, struct: type[S]) -> Into[S]:
        """Read the rows into a Struct, whose fields determine the selected columns; no entities are created.

        A field is read from the column of its name. A field with a Struct is read from a relation to one, with a join. A
        field with a list of Structs is read from a relation to many, with one more statement. A field that the model does not
        have keeps its default.

        Raises:
            StructError: a field has no default, and the model does not have it, or has it with another type.
        """
        if self._statement._with_options:  # noqa: SLF001 - there is no public way to ask
            raise TypeError(
                f"{struct.__name__} determines what is read: declare the relations of `load` as its fields instead."
            )
        return Into(self._model.resolve, self._limited, self._session, layout_of(self._model, struct))

    async def first(self) -> M | None:
        """Return the first row, or None."""
        rows = await self._rows(1)
        return rows[0] if rows else None

    async def one(self) -> M:
        """Return the only row.

        Raises:
            sqlalchemy.exc.NoResultFound: there is none.
            sqlalchemy.exc.MultipleResultsFound: there is more than one.
        """
        return (await self._run(self._limited(2))).unique().scalars().one()

    async def all(self) -> list[M]:
        """Return all rows."""
        return await self._rows()

    async def count(self) -> int:
        """Return the number of rows."""
        rows = self._limited().order_by(None).subquery()
        return (await self._run(select(func.count()).select_from(rows))).scalar_one()

    async def exists(self) -> bool:
        """Return whether there is at least one row."""
        asked = select(literal(1)).where(self._limited().order_by(None).exists())
        return (await self._run(asked)).first() is not None

    def _limited(self, rows: int | None = None) -> Select[M]:
        bounds = [bound for bound in (rows, self._at_most) if bound is not None]
        return self._statement.limit(min(bounds)) if bounds else self._statement

    async def _rows(self, rows: int | None = None) -> list[M]:
        return list((await self._run(self._limited(rows))).unique().scalars().all())

    async def _run(self, statement: Select[*Row]) -> Result[*Row]:
        async with self._model.resolve(self._session) as session:
            if statement.get_execution_options().get("populate_existing"):
                await session.flush()  # reading the rows again would overwrite pending changes
            return await session.execute(statement)
