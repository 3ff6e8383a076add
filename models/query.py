"""Queries: `User.filter(...)` and the methods that refine and run them."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, TypeVarTuple

import msgspec
from sqlalchemy import Result, Select, func, literal, select

from latchkey.models import bulk
from latchkey.models.bounds import require_sendable
from latchkey.models.errors import BulkError
from latchkey.models.into import Into
from latchkey.models.lookups import Q
from latchkey.models.steps import (
    Condition,
    Step,
    limited_to,
    loaded,
    locked,
    skipping,
    sorted_by,
    statement_of,
    where,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from latchkey.models.base import Base

M = TypeVar("M", bound="Base")
S = TypeVar("S", bound=msgspec.Struct)
Row = TypeVarTuple("Row")


def not_negative(name: str, rows: object) -> int:
    """Return a number of rows, or raise an error: SQLite reads a negative one as none, other servers refuse it."""
    if not isinstance(rows, int) or isinstance(rows, bool):
        raise TypeError(f"{name}({rows!r}): the number of rows must be an integer.")
    if rows < 0:
        raise ValueError(f"{name}({rows}): the number of rows cannot be negative.")
    require_sendable("Query", name, rows)
    return rows


class Query(Generic[M]):
    """A query under construction; each method returns a new one, and the last verb runs it."""

    def __init__(
        self,
        model: type[M],
        session: "AsyncSession | None",
        steps: tuple[Step, ...] = (),
        at_most: int | None = None,
        skipped: int | None = None,
    ) -> None:
        self._model = model
        self._session = session
        self._steps = steps
        self._at_most = at_most
        self._skipped = skipped

    def _with(self, *steps: Step) -> Self:
        return type(self)(self._model, self._session, (*self._steps, *steps), self._at_most, self._skipped)

    def filter(self, *conditions: Condition, **lookups: Any) -> Self:
        """Add conditions, all of which must hold: `name__like="a%"`, `author__id__in=[1, 2]`, `Q(...) | Q(...)`.

        A condition of SQLAlchemy, such as `func.length(Article.title) > 10`, is accepted too.
        """
        found = [*conditions, Q(**lookups)] if lookups else conditions
        return self._with(*(where(self._model, one) for one in found))

    def order_by(self, *names: str) -> Self:
        """Sort by columns, also of the rows of relations to one: `order_by("-id", "author__name")`.

        A leading minus means descending. A row without the related row is sorted as one with NULL.
        """
        return self._with(sorted_by(self._model, names))

    def limit(self, rows: int) -> Self:
        """Return at most this many rows."""
        rows = not_negative("limit", rows)
        return type(self)(self._model, self._session, self._steps, rows, self._skipped)

    def offset(self, rows: int) -> Self:
        """Skip this many rows. The server still reads them: use `paginate` for a long list."""
        rows = not_negative("offset", rows)
        return type(self)(self._model, self._session, self._steps, self._at_most, rows)

    def load(self, *relations: str) -> Self:
        """Load relations with the rows, also of related rows: `"author.publisher"`.

        Reading a relation that is not named here raises an error.
        """
        return self._with(loaded(self._model, relations))

    def for_update(self) -> Self:
        """Lock the rows until the transaction ends, and read them again, because a lock on a stale copy is useless."""
        return self._with(locked(self._model))

    def into(self, struct: type[S]) -> Into[S]:
        """Read the rows into a Struct, whose fields determine the selected columns; no entities are created.

        A field is read from the column of its name. A field with a Struct is read from a relation to one, with a join. A
        field with a list of Structs is read from a relation to many, with one more statement. A field that the model does not
        have keeps its default.

        Raises:
            StructError: a field has no default, and the model does not have it, or has it with another type.
        """
        if self._has("load"):
            raise TypeError(
                f"{struct.__name__} determines what is read: declare the relations of `load` as its fields instead."
            )
        return Into(self, struct)

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

    async def update(self, *, auto_commit: bool = False, **values: Any) -> int:
        """Change all rows with one UPDATE, and return their number: `update(stock=Article.stock - 1)`.

        Pending changes are flushed first. Loaded instances follow the change.

        Args:
            auto_commit: commit at once; without it, the code that opened the session commits.
            values: the new values of columns; an expression is computed by the database.

        Raises:
            BulkError: the query has a limit or an offset, or the model has an after-commit hook, which would not run; or
                a value reads another column that changes too.
        """
        return await bulk.update_rows(self._bulk("update"), values, auto_commit=auto_commit)

    async def delete(self, *, auto_commit: bool = False) -> int:
        """Delete all rows with one DELETE, and return their number.

        Foreign keys of the database decide what happens to related rows; the cascades of relations do not run.

        Args:
            auto_commit: commit at once; without it, the code that opened the session commits.

        Raises:
            BulkError: as for `update`.
        """
        return await bulk.delete_rows(self._bulk("delete"), auto_commit=auto_commit)

    def _bulk(self, verb: str) -> bulk.Rows:
        if self._at_most is not None or self._skipped is not None:
            raise BulkError(
                f"{verb}() of many rows takes no limit() and no offset(), which not every server has there: "
                "select the ids first, then filter by them."
            )
        return bulk.Rows(verb, self._model, statement_of(self._model, self._steps).whereclause, self._session)

    def _has(self, name: str) -> bool:
        return any(step.name == name for step in self._steps)

    def _require_whole(self, what: str) -> None:
        """Raise TypeError if the query has an order, a limit or an offset, which `what` sets by itself."""
        if self._has("order_by") or self._at_most is not None or self._skipped is not None:
            raise TypeError(
                f"{what} takes a query without order_by(), limit() and offset(): it sets them itself."
            )

    def _resolve(self) -> AbstractAsyncContextManager["AsyncSession"]:
        """Return a block with the session of the query."""
        return self._model.resolve(self._session)

    def _bounded(self, rows: int | None = None) -> tuple[Step, ...]:
        """Return the steps with those for the limit and the offset, and at most `rows` rows."""
        bounds = [bound for bound in (rows, self._at_most) if bound is not None]
        found = [limited_to(min(bounds))] if bounds else []
        if self._skipped is not None:
            found.append(skipping(self._skipped))
        return (*self._steps, *found)

    def _limited(self, rows: int | None = None) -> Select[M]:
        """Return the SELECT with its limit and offset, and with at most `rows` rows."""
        return statement_of(self._model, self._bounded(rows))

    async def _rows(self, rows: int | None = None) -> list[M]:
        return list((await self._run(self._limited(rows))).unique().scalars().all())

    async def _run(self, statement: Select[*Row]) -> Result[*Row]:
        async with self._resolve() as session:
            if statement.get_execution_options().get("populate_existing"):
                await session.flush()  # reading the rows again would overwrite pending changes
            return await session.execute(statement)
