"""The steps of a query: `filter`, `order_by`, `limit` and others, each with all that the SQL of its part depends on."""

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, ColumnElement, Integer, Select, inspect, orm, select
from sqlalchemy.orm import aliased

from latchkey.models.bounds import require_sendable
from latchkey.models.errors import UnknownLookupError
from latchkey.models.lookups import SEPARATOR, Parameter, Q, column_of, require_name
from latchkey.models.recent import Recent

Condition = Q | ColumnElement[bool]
AnySelect = Select[Any]
ROWS = Integer()

CHECKED = 1024
"""The maximum number of shapes of conditions that are not checked again."""


class Step(NamedTuple):
    """A part of a query."""

    name: str
    apply: Callable[[AnySelect, Sequence[Any]], AnySelect]
    """Adds the part to a SELECT, with its values or with parameters for them."""
    shape: Hashable = None
    """Everything that the SQL of the part depends on; None if only the built SQL shows this."""
    values: Sequence[Any] = ()


def shape_of(steps: Sequence[Step]) -> Hashable:
    """Return everything that the SQL of the steps depends on; None if only the built SQL shows this."""
    shapes = tuple([(step.name, step.shape) for step in steps])
    return None if any(shape is None for _, shape in shapes) else shapes


def values_of(steps: Sequence[Step]) -> dict[str, Any]:
    """Return the values of the steps by the names of their parameters."""
    return {
        name_of(place): value
        for place, value in enumerate(chain.from_iterable(step.values for step in steps))
    }


def statement_of(model: type[Any], steps: Sequence[Step]) -> AnySelect:
    """Return the SELECT of a query."""
    statement = select(model)
    for step in steps:
        statement = step.apply(statement, step.values)
    return statement


def statement_with_parameters(model: type[Any], steps: Sequence[Step]) -> AnySelect:
    """Return the SELECT of a query, with parameters instead of the values that `values_of` returns."""
    statement, place = select(model), 0
    for step in steps:
        parameters = [Parameter(name_of(place + n), value) for n, value in enumerate(step.values)]
        statement = step.apply(statement, parameters)
        place += len(parameters)
    return statement


def name_of(place: int) -> str:
    """Return the name of the parameter at a place."""
    return f"v{place}"


def bound(value: int | Parameter) -> Any:
    """Return a number of rows, or the parameter for it."""
    return value.bind(ROWS) if isinstance(value, Parameter) else value


# ---------------------------------------------------------------------- the steps

checked: Recent[bool] = Recent(CHECKED)
"""The shapes of conditions whose lookups exist, by model."""


def require_condition(model: Any, condition: object) -> None:
    """Raise an error for a value that Python has computed, such as the result of comparing two rows."""
    if not isinstance(condition, Q | ClauseElement) and not hasattr(condition, "__clause_element__"):
        raise TypeError(
            "filter takes lookups by name, Q(…) or conditions of SQLAlchemy, and the value is of the type "
            f"{type(condition).__name__}: write "
            f"filter(id=1) or filter({model.__name__}.id == 1)."
        )


def where(model: Any, condition: Condition) -> Step:
    """Return the step for a condition.

    Raises:
        UnknownLookupError: the model has no such column, relation or operator.
        InvalidValueError: a value is an integer of more than 64 bits.
        TypeError: the condition is neither a `Q` nor SQL.
    """
    require_condition(model, condition)
    if isinstance(condition, Q):
        for lookup, value in zip(condition.lookups, condition.values, strict=True):
            require_sendable(model.__name__, lookup, value)
    if not isinstance(condition, Q) or condition.shape is None:
        built = condition.on(model) if isinstance(condition, Q) else condition
        return Step("filter", lambda statement, _: statement.where(built))
    checked.get((model, condition.shape), lambda: condition.on(model) is not None)
    return Step(
        "filter",
        lambda statement, values: statement.where(condition._make(model, values)),
        condition.shape,
        condition.values,
    )


def sorted_by(model: Any, names: tuple[str, ...]) -> Step:
    """Return the step for an order by columns; a leading minus means descending.

    Raises:
        UnknownLookupError: the model has no such column.
    """
    columns = [sort_key(model, require_name("order_by", name)) for name in names]
    return Step("order_by", lambda statement, _: statement.order_by(*columns), names)


@lru_cache(maxsize=512)
def sort_key(model: Any, name: str) -> Any:
    """Return the expression that rows are sorted by."""
    column = sort_column(model, name.removeprefix("-"))
    return column.desc() if name.startswith("-") else column.asc()


def sort_column(entity: Any, path: str) -> Any:
    """Return a column, or that of the related row that a path leads to, as a subquery; it is NULL without such a row.

    A join would change the rows of the query, and what `count`, `load` and `into` add to it.
    """
    name, _, rest = path.partition(SEPARATOR)
    relations = inspect(entity).mapper.relationships
    if not rest or name not in relations:
        return column_of(entity, path)
    if relations[name].uselist:
        raise UnknownLookupError(
            f"{path!r}: {name} is a relation to many, so there is no single value to sort by."
        )
    target = aliased(relations[name].mapper.class_)
    found = select(sort_column(target, rest)).where(getattr(entity, name).of_type(target))
    return found.correlate(entity).scalar_subquery()


def loaded(model: type[Any], relations: tuple[str, ...]) -> Step:
    """Return the step that loads relations.

    Raises:
        UnknownLookupError: there is no such relation.
    """
    options = [relation_option(model, require_name("load", name)) for name in relations]
    return Step("load", lambda statement, _: statement.options(*options), relations)


def relation_option(model: type[Any], path: str) -> Any:
    """Return the loader option for a relation, or for a path of them such as `"author.publisher"`.

    A relation to one is loaded by a join, a relation to many by a second SELECT.
    """
    option: Any = None
    for name in path.split("."):
        relations = inspect(model).relationships
        if name not in relations:
            raise UnknownLookupError(
                f"{model.__name__} has no relation {name!r}; it has {', '.join(sorted(relations.keys())) or 'none'}."
            )
        kind = "selectinload" if relations[name].uselist else "joinedload"
        option = getattr(orm if option is None else option, kind)(getattr(model, name))
        model = relations[name].mapper.class_
    return option


def locked(model: type[Any]) -> Step:
    """Return the step that locks the rows, and reads them again."""
    return Step(
        "for_update",
        lambda statement, _: statement.with_for_update(of=model).execution_options(populate_existing=True),
        shape=True,
    )


def limited_to(rows: int) -> Step:
    """Return the step that ends after a number of rows."""
    return Step("limit", lambda statement, values: statement.limit(bound(values[0])), True, (rows,))


def skipping(rows: int) -> Step:
    """Return the step that skips a number of rows."""
    return Step("offset", lambda statement, values: statement.offset(bound(values[0])), True, (rows,))
