"""Convert rows to Structs: the columns to select, the relations to read, and how each Struct is built."""

import inspect as python_inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, get_args, get_origin

import msgspec
from sqlalchemy import Select, inspect
from sqlalchemy.ext.hybrid import HybridExtensionType
from sqlalchemy.orm import Mapper, RelationshipProperty, aliased

from latchkey.models.fields import Field, Fit, fields_of, fit_of, readable
from latchkey.models.reach import Reach, reach_of
from latchkey.models.read_statement import ColumnConversion, ReadStatement

Values = list[Any]
"""The values of a row by their slots; each Struct takes a consecutive range."""
Groups = Sequence[dict[Any, list[Any]]]
"""For each relation to many of a layout, the Structs by the key of their parent row."""


class Node:
    """Builds one Struct from the values of a row."""

    def __init__(self, struct: Any, start: int, names: Sequence[str]) -> None:
        self.struct = get_origin(struct) or struct
        self.start = start
        self.end = start + len(names)
        self.names = None if takes_by_position(self.struct, names) else tuple(names)
        self.fits: list[tuple[int, Fit]] = []
        self.ones: list[tuple[int, Node, Field]] = []
        self.lists: list[tuple[int, Callable[[Values], Any], int, type]] = []

    def make(self, values: Values, groups: Groups) -> Any:
        """Return the Struct, including nested ones.

        Raises:
            StructError: a value does not fit.
        """
        for slot, node, field in self.ones:
            if values[slot] is not None:
                values[slot] = node.make(values, groups)
            elif not field.allows_none:
                raise field.error("there is no related row, and the field is not `| None`.")
        for slot, key_of, number, container in self.lists:
            values[slot] = container(groups[number].get(key_of(values), ()))
        for slot, fit in self.fits:
            values[slot] = fit(values[slot])
        if self.names is None:
            return self.struct(*values[self.start : self.end])
        return self.struct(**dict(zip(self.names, values[self.start : self.end], strict=True)))


def takes_by_position(struct: Any, names: Sequence[str]) -> bool:
    """Return whether a Struct takes these arguments by position."""
    parameters = python_inspect.signature(struct).parameters.values()
    by_position = [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY]
    return by_position[: len(names)] == list(names)


class Many:
    """A relation to many, read with one statement for all rows."""

    def __init__(self, reach: Reach, layout: "Layout", key_of: Callable[[Values], Any]) -> None:
        self.layout = layout
        self.statement: ReadStatement[Values] = ReadStatement(
            layout.join(reach.select(layout.columns)), layout.make_reader
        )
        self.key_of = key_of
        """Returns the key of the parent row."""
        self.key_of_child: Callable[[Values], Any] = itemgetter(*layout.key_slots)


class Layout:
    """The columns, joins and further statements for a Struct, and how it is built from a row.

    Args:
        model: the entity whose rows are read.
        struct: the Struct that they become.
        keys: columns in addition to those of the Struct.
        outside: the Structs that contain this one.

    Raises:
        StructError: the Struct has a field that cannot be read.
    """

    def __init__(
        self, model: Any, struct: Any, *, keys: Sequence[Any] = (), outside: tuple[Any, ...] = ()
    ) -> None:
        self.columns: list[Any] = []
        self.slots: list[int] = []
        self.joins: list[tuple[Any, bool]] = []
        self.many: list[Many] = []
        self._places: dict[tuple[Any, str], int] = {}
        self.root = self._add(struct, model, outside, outer=False)
        self.key_slots = list(range(len(self.slots), len(self.slots) + len(keys)))
        for key in keys:
            self.slots.append(len(self.columns))
            self.columns.append(key.label(f"c{len(self.columns)}"))

    def _place_of(self, entity: Any, name: str) -> int:
        place = self._places.get((entity, name))
        if place is None:
            place = self._places[entity, name] = len(self.columns)
            self.columns.append(getattr(entity, name).label(f"c{place}"))
        return place

    def _add(self, struct: Any, entity: Any, outside: tuple[Any, ...], *, outer: bool) -> Node:
        mapper: Mapper[Any] = inspect(entity).mapper
        found = [(field, relation_of(field, mapper)) for field in fields_of(struct) if is_read(field, mapper)]
        node = Node(struct, len(self.slots), [field.name for field, _ in found])
        self.slots += [-1] * len(found)
        outside = (*outside, struct)
        for slot, (field, relation) in enumerate(found, start=node.start):
            if relation is None:
                self.slots[slot] = self._place_of(entity, field.name)
                attribute = getattr(entity, field.name)
                nullable = getattr(attribute.expression, "nullable", True)
                fit = fit_of(field, attribute, may_be_null=nullable)
                if fit is not None:
                    node.fits.append((slot, fit))
            elif relation.uselist:
                self._add_many(node, field, relation, slot=slot, entity=entity, outside=outside)
            else:
                self._add_one(node, field, relation, slot=slot, entity=entity, outside=outside, outer=outer)
        return node

    def _add_one(
        self,
        node: Node,
        field: Field,
        relation: RelationshipProperty[Any],
        *,
        slot: int,
        entity: Any,
        outside: tuple[Any, ...],
        outer: bool,
    ) -> None:
        struct = nested_struct(field, field.core, outside)
        target = aliased(relation.mapper.class_)
        # If the related row does not exist, or is missing because of its own join, the row itself must still be returned.
        always = relation.direction.name == "MANYTOONE" and not any(
            column.nullable for column in relation.local_columns
        )
        outer = outer or field.allows_none or not always
        self.joins.append((getattr(entity, relation.key).of_type(target), outer))
        key = relation.mapper.get_property_by_column(relation.mapper.primary_key[0]).key
        self.slots[slot] = self._place_of(target, key)  # NULL where there is no row
        node.ones.append((slot, self._add(struct, target, outside, outer=outer), field))

    def _add_many(
        self,
        node: Node,
        field: Field,
        relation: RelationshipProperty[Any],
        *,
        slot: int,
        entity: Any,
        outside: tuple[Any, ...],
    ) -> None:
        container, struct = list_of_structs(field, outside)
        reach = reach_of(field, relation)
        layout = Layout(relation.mapper.class_, struct, keys=reach.columns, outside=outside)
        first, *others = reach.names
        self.slots[slot] = self._place_of(entity, first)
        slots = [slot, *range(len(self.slots), len(self.slots) + len(others))]
        self.slots += [self._place_of(entity, name) for name in others]
        many = Many(reach, layout, itemgetter(*slots))
        node.lists.append((slot, many.key_of, len(self.many), container))
        self.many.append(many)

    def select(self, statement: Select[Any]) -> Select[Any]:
        """Turn a SELECT of entities into a SELECT of the columns, with the joins."""
        return self.join(statement.with_only_columns(*self.columns, maintain_column_froms=True))

    def join(self, statement: Select[Any]) -> Select[Any]:
        """Add the joins to a SELECT of the columns."""
        for target, outer in self.joins:
            statement = statement.join(target, isouter=outer)
        return statement

    def make_reader(self, converts: Sequence[ColumnConversion | None]) -> Callable[[Sequence[Any]], Values]:
        """Return a function that reads a row into its slots, given the conversions of the driver's values."""
        places = [(place, convert) for place, convert in enumerate(converts) if convert is not None]
        in_order = self.slots == list(range(len(self.columns)))
        pick = itemgetter(*self.slots)

        def read(row: Sequence[Any]) -> Values:
            values = list(row)
            for place, convert in places:
                values[place] = convert(values[place])
            return values if in_order else list(pick(values))

        return read


@lru_cache(maxsize=512)
def layout_of(model: Any, struct: Any, keys: tuple[str, ...] = ()) -> Layout:
    """Return the layout of a Struct for the rows of a model, with further columns by their names.

    Raises:
        StructError: the Struct has a field that cannot be read.
        TypeError: it is not a Struct.
    """
    return Layout(model, struct, keys=[getattr(model, name) for name in keys])


def is_read(field: Field, mapper: Mapper[Any]) -> bool:
    """Return whether a field is read from the model; a field that the model does not have must have a default.

    Raises:
        StructError: the model does not have it, and it has no default.
    """
    descriptor = mapper.all_orm_descriptors.get(field.name)
    if descriptor is not None and (
        field.name in mapper.column_attrs
        or field.name in mapper.relationships
        or field.name in mapper.synonyms
        or descriptor.extension_type is HybridExtensionType.HYBRID_PROPERTY
    ):
        return True
    if field.has_default and descriptor is None:
        return False
    known = sorted([*mapper.column_attrs.keys(), *mapper.relationships.keys()])
    raise field.error(
        f"{mapper.class_.__name__} has no column or relation of this name; it has {', '.join(known)}."
    )


def relation_of(field: Field, mapper: Mapper[Any]) -> RelationshipProperty[Any] | None:
    """Return the relation that a field is read from; None for a column."""
    return mapper.relationships.get(field.name)


def nested_struct(field: Field, kind: Any, outside: tuple[Any, ...]) -> Any:
    """Return the Struct that a relation is read into.

    Raises:
        StructError: the type is not a Struct, or is one that contains this field.
    """
    origin = get_origin(kind) or kind
    if not (isinstance(origin, type) and issubclass(origin, msgspec.Struct)):
        raise field.error(f"it is a relation, so its type must be a Struct, not {readable(kind)}.")
    if kind in outside:
        raise field.error(f"{readable(kind)} contains itself, so reading it would never end.")
    return kind


def list_of_structs(field: Field, outside: tuple[Any, ...]) -> tuple[type, Any]:
    """Return the container of a relation to many, list or tuple, and its Struct.

    Raises:
        StructError: the field has another type.
    """
    container, given = get_origin(field.core), get_args(field.core)
    if container is list or (container is tuple and given[1:] == (Ellipsis,)):
        return container, nested_struct(field, given[0], outside)
    raise field.error(
        f"it is a relation to many, so its type must be a list or a tuple of Structs, not {readable(field.core)}."
    )
