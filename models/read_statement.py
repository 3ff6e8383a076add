"""A SELECT and the reader of its rows, for sessions of this package and for SQLAlchemy's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeGuard, TypeVar

from sqlalchemy import CompoundSelect, Select

T = TypeVar("T")

AnySelect = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]
ColumnConversion = Callable[[Any], Any]
MakeReader = Callable[[Sequence[ColumnConversion | None]], Callable[[Sequence[Any]], T]]
"""Makes a reader of rows, given a conversion for each column; an empty sequence means no conversions."""


class Preparing(Protocol):
    """A session of this package, which sends prepared statements, unlike SQLAlchemy's own."""

    def prepare(self, statement: Any, make: MakeReader[T], *, cache_key: Any = None) -> Any:
        """Prepare a statement, for any session."""

    async def read(self, prepared: Any, values: Mapping[Any, Any]) -> list[Any]:
        """Run a prepared statement."""


def prepares(session: Any) -> TypeGuard[Preparing]:
    """Return whether a session sends prepared statements."""
    return hasattr(session, "prepare")


class ReadStatement(Generic[T]):
    """A SELECT whose values are passed by name; prepared when it is first read."""

    def __init__(self, statement: AnySelect, make_reader: MakeReader[T]) -> None:
        self._statement = statement
        self._make_reader = make_reader
        self._prepared: Any = None

    async def read(self, session: Any, values: Mapping[str, Any]) -> list[T]:
        """Return the rows."""
        if not prepares(session):
            read = self._make_reader(())
            return [read(row) for row in (await session.execute(self._statement, values)).all()]
        if self._prepared is None:
            self._prepared = session.prepare(self._statement, self._make_reader)
        return await session.read(self._prepared, values)
