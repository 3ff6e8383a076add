"""Lookups: `author__name__like="a%"`, and their combinations with `Q`, as conditions of a SELECT."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    ClauseElement,
    ColumnElement,
    UnaryExpression,
    and_,
    bindparam,
    inspect,
    not_,
    or_,
    tuple_,
)
from sqlalchemy.orm import Mapper, RelationshipProperty, aliased
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeEngine

from latchkey.models.errors import UnknownLookupError
from latchkey.models.types import BinaryText

SEPARATOR = "__"  # between the names and the operator of a lookup

OPERATORS: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column != value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "like": lambda column, value: column.like(value),
    "in": lambda column, value: column.in_(value),
    "not_in": lambda column, value: column.not_in(value),
    "is_null": lambda column, value: column.is_(None) if value else column.is_not(None),
}

Make = Callable[[Any, Sequence[Any]], ColumnElement[bool]]
"""Makes a condition for an entity, a model or an alias of one, with values or with parameters for them."""

LISTS = frozenset({"in", "not_in"})
"""The operators whose value is a list."""


def require_name(verb: str, found: Any) -> str:
    """Return a name, or raise an error that shows how the name of this column or relation is written."""
    if isinstance(found, str):
        return found
    if isinstance(found, UnaryExpression) and found.modifier in {operators.asc_op, operators.desc_op}:
        sign, column = "-" if found.modifier is operators.desc_op else "", found.element
    else:
        sign, column = "", found
    key = getattr(column, "key", None)
    example = f": write {verb}({sign + key!r})" if isinstance(key, str) else ""
    raise UnknownLookupError(
        f"{verb} takes names, and the value is of the type {type(found).__name__}{example}."
    )


class Parameter(msgspec.Struct, frozen=True):
    """The place of a value in a statement that is compiled once for all values of a type."""

    name: str
    sample: Any
    """One of these values, or a list of them."""

    def bind(self, kind: TypeEngine[Any]) -> BindParameter[Any]:
        """Return the parameter for a value that is compared with values of a type, or for a list of them."""
        is_list = isinstance(self.sample, list)
        sample = next(iter(self.sample), None) if is_list else self.sample
        return bindparam(self.name, type_=kind.coerce_compared_value(operators.eq, sample), expanding=is_list)


class Q:
    """Lookups as a value, for alternatives: `Article.filter(Q(author=ann) | Q(status="public"))`.

    `a | b` holds if a or b holds, `a & b` if both hold, and `~a` if a does not hold. All lookups of one `Q` must hold,
    as in `filter`. As in SQL, neither a condition on NULL nor its negation holds.
    """

    shape: Hashable
    """All that its SQL depends on; None if that is more than the names of lookups and the types of values."""
    values: tuple[Any, ...]
    """The values that may differ within the shape, in the order of its parameters."""
    lookups: tuple[str, ...]
    """The lookups of these values."""

    def __init__(self, *others: Any, **lookups: Any) -> None:
        if others:
            raise TypeError(
                "Q takes lookups by name, as in Q(title__like='a%'): pass a condition of SQLAlchemy to filter, and "
                "combine conditions of SQLAlchemy with its or_."
            )
        if not lookups:
            raise TypeError("Q() needs at least one lookup; it would match every row.")
        fixed: dict[str, Any] = {}
        varying: dict[str, Any] = {}
        for lookup, value in lookups.items():
            operator = operator_of(lookup)
            if operator == "is_null":
                fixed[lookup] = bool(value)
            elif value is None and operator not in LISTS:
                fixed[lookup] = None
            else:
                varying[lookup] = list(value) if operator in LISTS else value
        kinds = tuple([kind_of(value) for value in varying.values()])
        self.shape = None if None in kinds else (tuple(fixed.items()), tuple(varying), kinds)
        self.values, self.lookups = tuple(varying.values()), tuple(varying)
        self._make: Make = lambda entity, values: conditions(
            entity, {**fixed, **dict(zip(varying, values, strict=True))}
        )

    @classmethod
    def _made(cls, make: Make, operator: str, *parts: "Q") -> "Q":
        made = cls.__new__(cls)
        shapes = tuple([part.shape for part in parts])
        made.shape = None if None in shapes else (operator, shapes)
        made.values = tuple([value for part in parts for value in part.values])
        made.lookups = tuple([lookup for part in parts for lookup in part.lookups])
        made._make = make
        return made

    def _combined(self, other: "Q", combine: Callable[..., ColumnElement[bool]]) -> "Q":
        count = len(self.values)
        return self._made(
            lambda entity, values: combine(
                self._make(entity, values[:count]), other._make(entity, values[count:])
            ),
            combine.__name__,
            self,
            other,
        )

    def __or__(self, other: "Q") -> "Q":
        """Return the condition that one of both holds."""
        return self._combined(other, or_)

    def __and__(self, other: "Q") -> "Q":
        """Return the condition that both hold."""
        return self._combined(other, and_)

    def __invert__(self) -> "Q":
        """Return the condition that it does not hold."""
        return self._made(lambda entity, values: not_(self._make(entity, values)), "not_", self)

    def __bool__(self) -> bool:
        """Raise an error: `or`, `and` and `not` would ignore one of two conditions."""
        raise TypeError("a Q has no truth value: combine it with |, & and ~, not with or, and, not.")

    def on(self, entity: Any) -> ColumnElement[bool]:
        """Return the condition for the rows of an entity.

        Raises:
            UnknownLookupError: the model has no such column, relation or operator.
        """
        return self._make(entity, self.values)


def operator_of(lookup: str) -> str:
    """Return the text after the last separator of a lookup; without one, the operator is equality."""
    _, separator, operator = lookup.rpartition(SEPARATOR)
    return operator if separator else "eq"


def kind_of(value: Any) -> Hashable:
    """Return the kind of a value, all of whose values are the same parameter of the same SQL; None if there is none."""
    if not isinstance(value, list):
        kind: Any = type(value)
        return kind if is_plain(kind) else None
    kinds: dict[Any, None] = dict.fromkeys(map(type, value))
    return (list, next(iter(kinds), None)) if all(map(is_plain, kinds)) else None


@lru_cache(maxsize=512)
def is_plain(kind: Any) -> bool:
    """Return whether values of a type are sent to the database, unlike None, expressions, and instances of models."""
    return not (
        kind is NoneType
        or issubclass(kind, ClauseElement)
        or hasattr(kind, "__clause_element__")
        or inspect(kind, raiseerr=False) is not None
    )


def conditions(entity: Any, lookups: Mapping[str, Any]) -> ColumnElement[bool]:
    """Return the condition that all lookups hold; those that begin with the same relation hold for the same related row.

    Raises:
        UnknownLookupError: the model has no such column, relation or operator.
    """
    relations = inspect(entity).mapper.relationships
    found: list[ColumnElement[bool]] = []
    related: dict[str, dict[str, Any]] = {}
    for lookup, value in lookups.items():
        name, _, rest = lookup.partition(SEPARATOR)
        if name not in relations:
            found.append(condition(entity, lookup, value))
        elif not rest or rest in OPERATORS:
            found.append(related_condition(entity, relations[name], lookup, rest or "eq", value))
        else:
            related.setdefault(name, {})[rest] = value
    for name, inner in related.items():
        target = aliased(relations[name].mapper.class_)
        found.append(
            exists(relations[name], getattr(entity, name).of_type(target), conditions(target, inner))
        )
    return and_(*found)


def exists(
    relation: RelationshipProperty[Any], attribute: Any, criterion: ColumnElement[bool] | None = None
) -> ColumnElement[bool]:
    """Return the condition that there is a related row; EXISTS does not repeat a row, as a join would."""
    found: ColumnElement[bool] = (attribute.any if relation.uselist else attribute.has)(criterion)
    return found


def related_condition(
    entity: Any, relation: RelationshipProperty[Any], lookup: str, operator: str, value: Any
) -> ColumnElement[bool]:
    """Convert a lookup whose last name is a relation: equal to an instance, or without a related row."""
    attribute = getattr(entity, relation.key)
    if operator == "is_null":
        found = exists(relation, attribute)
        return not_(found) if value else found
    if operator not in {"eq", "ne"}:
        raise UnknownLookupError(
            f"{lookup!r}: a relation has the operators eq, ne and is_null; for others, name a column of it."
        )
    if value is None and not relation.uselist:
        found = not_(exists(relation, attribute))
    elif not isinstance(value, relation.mapper.class_):
        raise UnknownLookupError(
            f"{lookup!r}: the value must be an instance of {relation.mapper.class_.__name__}, not {type(value).__name__}."
        )
    elif relation.uselist:
        target = aliased(relation.mapper.class_)
        key = relation.mapper.primary_key_from_instance(value)
        found = exists(relation, attribute.of_type(target), identified(relation.mapper, [tuple(key)], target))
    else:
        found = attribute == value
    return not_(found) if operator == "ne" else found


def condition(entity: Any, lookup: str, value: Any) -> ColumnElement[bool]:
    """Convert one lookup of a column, `name__like="a%"`, to a condition; without an operator it means equality.

    Raises:
        UnknownLookupError: there is no such column or operator; the message lists those that exist.
    """
    name, separator, operator = lookup.rpartition(SEPARATOR)
    if not separator:
        name, operator = lookup, ""
    column = column_of(entity, name)
    compare = OPERATORS.get(operator or "eq")
    if compare is None:
        raise UnknownLookupError(
            f"{lookup!r}: there is no operator {operator!r}; there are {', '.join(OPERATORS)}."
        )
    if operator == "like" and isinstance(column.type, BinaryText):
        raise UnknownLookupError(f"{lookup!r}: there is no operator 'like' for text that is stored as bytes.")
    return compare(column, value.bind(column.type) if isinstance(value, Parameter) else value)


def column_of(entity: Any, name: str) -> Any:
    """Return the column attribute `name`, or raise `UnknownLookupError` with the columns and relations that exist."""
    mapper: Mapper[Any] = inspect(entity).mapper
    if name not in mapper.column_attrs:
        relations = sorted(mapper.relationships.keys())
        also = f"; and the relations {', '.join(relations)}" if relations else ""
        raise UnknownLookupError(
            f"{mapper.class_.__name__} has no column {name!r}; "
            f"it has {', '.join(sorted(mapper.column_attrs.keys()))}{also}."
        )
    return getattr(entity, name)


def identified(
    model: type[Any] | Mapper[Any], identities: Sequence[tuple[Any, ...]], alias: Any = None
) -> ColumnElement[bool]:
    """Convert primary keys, each a tuple of its columns, to a condition on a model, or on an alias of it."""
    keys: Sequence[ColumnElement[Any]] = inspect(model).primary_key
    if alias is not None:
        mapper = inspect(alias).mapper
        keys = [getattr(alias, mapper.get_property_by_column(key).key) for key in keys]
    if len(keys) == 1:
        return keys[0].in_([value for (value,) in identities])
    return tuple_(*keys).in_(identities)
