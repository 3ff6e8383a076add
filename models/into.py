"""`Article.filter(…).into(ArticleRow)`: rows that become Structs instead of entities."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Select
from sqlalchemy.exc import MultipleResultsFound, NoResultFound

from latchkey.models.reach import KEYS, MOST_KEYS
from latchkey.models.read_statement import ReadStatement, prepares
from latchkey.models.recent import Recent
from latchkey.models.steps import shape_of, statement_of, statement_with_parameters, values_of
from latchkey.models.structs import Groups, Layout, Many, Values, layout_of

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

SHAPES = 512
"""The maximum number of compiled statements; the least recently used one is dropped."""


class Into(Generic[S]):
    """A query whose rows become Structs; the last verb runs it."""

    def __init__(self, query: Any, struct: type[S]) -> None:
        self._query = query
        self._struct = struct
        self._layout = layout_of(query._model, struct)

    async def first(self) -> S | None:
        """Return the first row, or None."""
        rows = await self._rows(1)
        return rows[0] if rows else None

    async def one(self) -> S:
        """Return the only row.

        Raises:
            sqlalchemy.exc.NoResultFound: there is none.
            sqlalchemy.exc.MultipleResultsFound: there is more than one.
        """
        return only(await self._rows(2))

    async def all(self) -> list[S]:
        """Return all rows."""
        return await self._rows(None)

    async def _all_with_keys(self, names: tuple[str, ...]) -> list[tuple[S, list[Any]]]:
        """Return all rows, each with the values of these columns."""
        layout = layout_of(self._query._model, self._struct, names)
        async with self._query._resolve() as session:
            rows = await self._values(session, layout, None)
            keys = [[values[slot] for slot in layout.key_slots] for values in rows]
            return list(zip(await make(session, layout, rows), keys, strict=True))

    async def _rows(self, limit: int | None) -> list[S]:
        async with self._query._resolve() as session:
            rows = await self._values(session, self._layout, limit)
            return await make(session, self._layout, rows)

    async def _values(self, session: Any, layout: Layout, limit: int | None) -> Sequence[Values]:
        """Run the query as a SELECT of the columns of a layout, and return its rows."""
        model, steps = self._query._model, self._query._bounded(limit)
        shape = shape_of(steps)
        if shape is None or not prepares(session):
            return await read_built(session, layout, statement_of(model, steps))
        prepared = shapes.get(
            (layout, shape),
            lambda: session.prepare(
                layout.select(statement_with_parameters(model, steps)), layout.make_reader
            ),
        )
        found: Sequence[Values] = await session.read(prepared, values_of(steps))
        return found


def only(rows: Sequence[T]) -> T:
    """Return the only row, or raise SQLAlchemy's error."""
    if not rows:
        raise NoResultFound("No row was found when one was required")
    if len(rows) > 1:
        raise MultipleResultsFound("Multiple rows were found when exactly one was required")
    return rows[0]


# The compiled statements of earlier queries, by Struct and by the shape of the query.
shapes: Recent[Any] = Recent(SHAPES)


async def read_built(session: Any, layout: Layout, statement: Select[Any]) -> Sequence[Values]:
    """Run a SELECT of entities, whose shape is SQLAlchemy's cache key, as a SELECT of the columns of a layout."""
    key = statement._generate_cache_key()
    if key is None or not prepares(session):  # not cacheable, or a session of SQLAlchemy's own
        return await ReadStatement(layout.select(statement), layout.make_reader).read(session, {})
    prepared = shapes.get(
        (layout, key.key),
        lambda: session.prepare(layout.select(statement), layout.make_reader, cache_key=key),
    )
    values = {place: one.effective_value for place, one in enumerate(key.bindparams)}
    found: Sequence[Values] = await session.read(prepared, values)
    return found


async def make(session: Any, layout: Layout, rows: Sequence[Values]) -> list[Any]:
    """Return the Structs of rows, after one more statement for each relation to many."""
    groups: Groups = [await group(session, many, rows) for many in layout.many] if rows else ()
    build = layout.root.make
    return [build(values, groups) for values in rows]


async def group(session: Any, many: Many, rows: Sequence[Values]) -> dict[Any, list[Any]]:
    """Return the rows of a relation to many, grouped by the key of their parent row."""
    keys = [key for key in dict.fromkeys(map(many.key_of, rows)) if is_whole(key)]
    found: dict[Any, list[Any]] = {}
    for start in range(0, len(keys), MOST_KEYS):
        given = {KEYS: keys[start : start + MOST_KEYS]}
        children = await many.statement.read(session, given)
        keys_of_children = list(map(many.key_of_child, children))
        structs = await make(session, many.layout, children)
        for key, struct in zip(keys_of_children, structs, strict=True):
            found.setdefault(key, []).append(struct)
    return found


def is_whole(key: Any) -> bool:
    """Return whether no part of a key is NULL; a row with a NULL in its key has no related rows."""
    return key is not None and not (isinstance(key, tuple) and None in key)
