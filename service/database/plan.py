"""How one dialect sends a prepared statement: its SQL, and the conversions between values and the driver."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from asyncmy.constants.FIELD_TYPE import FLOAT
from sqlalchemy import BindParameter, CompoundSelect, Dialect, Float, Insert, Numeric, Select, bindparam
from sqlalchemy.sql.sqltypes import NullType, TupleType

from latchkey.service.database.single_precision import with_floats_as_text

T_co = TypeVar("T_co", covariant=True)

Statement = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]] | Insert
ColumnConversion = Callable[[Any], Any]
RowValues = tuple[Any, ...]
RowReader = Callable[[Sequence[Any]], T_co]
"""Converts a driver row to Python values."""
MakeRowReader = Callable[[Sequence[ColumnConversion | None]], RowReader[T_co]]
"""Makes a `RowReader`, given a conversion for each column; None means no conversion."""

LONGEST_LIST = 2**14
"""The maximum number of values for `IN`: SQLite accepts 32,766 in a statement, MariaDB and MySQL 65,535."""
EXPANSIONS = 64  # the maximum for one statement, by the lengths of its lists; 16 for each list


def as_values(converts: Sequence[ColumnConversion | None]) -> RowReader[RowValues]:
    """Return a reader that returns rows as tuples."""
    places = [(place, convert) for place, convert in enumerate(converts) if convert is not None]
    if not places:
        return tuple

    def read(row: Sequence[Any]) -> RowValues:
        values = list(row)
        for place, convert in places:
            values[place] = convert(values[place])
        return tuple(values)

    return read


def padded(values: Any) -> list[Any]:
    """Return the values of a list, with the last one repeated up to a power of two.

    Lists of any length thus produce few statements, all of which the server can keep.

    Raises:
        TypeError: it is not a list.
        ValueError: it is too long.
    """
    if isinstance(values, str | bytes):
        raise TypeError(f"the value must be a list, not a {type(values).__name__}.")
    found = list(values)
    length = len(found)
    if length > LONGEST_LIST:
        raise ValueError(f"a list of {length:,} values is too long; the maximum is {LONGEST_LIST:,}.")
    if found:
        found += [found[-1]] * ((1 << (length - 1).bit_length()) - length)
    return found


class Plan(Generic[T_co]):
    """A statement in the form in which one dialect sends and reads it.

    Args:
        statement: the statement to compile.
        dialect: the dialect to compile it for.
        make: makes the reader of rows.
        cache_key: SQLAlchemy's cache key. The values of its extracted parameters are given by their position, all other
            required values by name.
    """

    def __init__(
        self,
        statement: Statement,
        dialect: Dialect,
        make: MakeRowReader[T_co],
        *,
        cache_key: Any = None,
    ) -> None:
        self._make = make
        self._compiled = compiled = statement.compile(dialect=dialect, cache_key=cache_key)
        self.sql = str(compiled)
        names: Sequence[str] = compiled.positiontup or ()
        positions = _positions(compiled, cache_key)
        self._constants: dict[Any, Any] = {}
        self._lists: dict[Any, ColumnConversion] = {}
        self._parameters: list[tuple[Any, ColumnConversion | None]] = []
        for name in names:
            bind = compiled.binds[name]
            source = positions.get(name, bind.key)
            if name not in positions and not bind.required:
                self._constants[source] = bind.effective_value
            if bind.expanding:
                self._lists[source] = _list_converter(bind, dialect)
                self._parameters.append((source, None))
            else:
                self._parameters.append((source, bind.type.dialect_impl(dialect).bind_processor(dialect)))
        self._names = {self._parameters[place][0]: name for place, name in enumerate(names)}
        self._expansions: dict[tuple[int, ...], str] = {}
        kinds = [column.type for column in statement.exported_columns]
        self._converts = [kind.dialect_impl(dialect).result_processor(dialect, None) for kind in kinds]
        self._read = make(self._converts)
        self._maybe_floats: list[int] = []
        if dialect.name == "mysql":
            self._maybe_floats = [
                place
                for place, kind in enumerate(kinds)
                if isinstance(kind.dialect_impl(dialect), Float | Numeric | NullType)
            ]
        self._readers: dict[tuple[int | None, ...], RowReader[T_co]] = {}

    def bind(self, values: Mapping[Any, Any]) -> tuple[str, RowValues]:
        """Return the SQL, and the values in the order of its placeholders, converted for the driver.

        Raises:
            KeyError: a value is missing.
            TypeError: the value for an `IN` is not a list.
            ValueError: a list is too long, or a value does not match its type.
        """
        if self._constants:
            values = {**self._constants, **values}
        if self._lists:
            return self._bind_lists(values)
        return self.sql, tuple(
            values[source] if convert is None else convert(values[source])
            for source, convert in self._parameters
        )

    def _bind_lists(self, values: Mapping[Any, Any]) -> tuple[str, RowValues]:
        lists = {source: padded(values[source]) for source in self._lists}
        lengths = tuple(len(one) for one in lists.values())
        sql = self._expansions.get(lengths)
        if sql is None:
            if len(self._expansions) >= EXPANSIONS:
                del self._expansions[next(iter(self._expansions))]
            given = {self._names[source]: lists.get(source) for source in self._names}
            sql = self._expansions[lengths] = self._compiled.construct_expanded_state(given).statement
        converted = {source: convert(lists[source]) for source, convert in self._lists.items()}
        bound: list[Any] = []
        for source, convert in self._parameters:
            if source in converted:
                bound += converted[source]
            else:
                bound.append(values[source] if convert is None else convert(values[source]))
        return sql, tuple(bound)

    def read(self, rows: Sequence[Sequence[Any]], description: Any) -> list[T_co]:
        """Convert the driver's rows to Python values.

        Args:
            rows: as returned by the driver.
            description: of the cursor; None when FLOAT columns were already rounded as in the text protocol.
        """
        read = self._read
        if description is not None and self._maybe_floats:
            read = self._reader_of(description)
        return [read(row) for row in rows]

    def _reader_of(self, description: Sequence[Sequence[Any]]) -> RowReader[T_co]:
        """Return the reader for the actual column types: an expression of FLOATs may be a DOUBLE."""
        columns = [description[place] for place in self._maybe_floats]
        decimals = tuple([int(one[5]) if one[1] == FLOAT else None for one in columns])
        read = self._readers.get(decimals)
        if read is None:
            converts = with_floats_as_text(
                self._converts, dict(zip(self._maybe_floats, decimals, strict=True))
            )
            read = self._readers[decimals] = self._make(converts)
        return read


def _positions(compiled: Any, cache_key: Any) -> dict[str, int]:
    """Return, for each placeholder name, the position of its parameter among those that the cache key extracted."""
    if cache_key is None:
        return {}
    probes: list[BindParameter[Any]] = [
        bindparam(None, _Probe(position)) for position, _ in enumerate(cache_key.bindparams)
    ]
    found = compiled.construct_params(extracted_parameters=probes, _no_postcompile=True)
    return {name: value.position for name, value in found.items() if isinstance(value, _Probe)}


class _Probe:
    """A value that holds the position of its parameter."""

    def __init__(self, position: int) -> None:
        self.position = position


def _list_converter(bind: BindParameter[Any], dialect: Dialect) -> ColumnConversion:
    """Return a function that makes a flat list of the values for `IN`, which may be tuples."""
    if isinstance(bind.type, TupleType):
        converts = [kind.dialect_impl(dialect).bind_processor(dialect) for kind in bind.type.types]

        def flatten(rows: list[Any]) -> list[Any]:
            return [
                value if convert is None else convert(value)
                for row in rows
                for value, convert in zip(row, converts, strict=True)
            ]

        return flatten
    convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
    if convert is None:
        return list
    return lambda values: [convert(value) for value in values]
