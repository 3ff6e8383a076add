"""Conversion: any object that has the fields of a Struct is converted to that Struct.

`msgspec.convert(..., from_attributes=True)` treats every error of an attribute as an absent attribute, and uses the
field's default. `convert` reads the attributes itself, at every depth, so that an attribute that is not loaded raises an
error that names it. Use it for everything that leaves the service: a response, or an event of an after-commit hook.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import is_
from typing import Any, TypeVar, get_origin
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
from msgspec import inspect as types

S = TypeVar("S")
Reader = Callable[[Any], Any]

TEXTS = (str, bytes, bytearray, memoryview)
ARRAYS = (list, tuple, set, frozenset)
ATOMS = (
    *TEXTS,
    type(None),
    bool,
    int,
    float,
    Decimal,
    date,
    time,
    timedelta,
    UUID,
    Enum,
    UnsetType,
    msgspec.Raw,
)


class AnswerError(TypeError):
    """The result of an endpoint does not match its declared response."""


def convert(found: Any, kind: type[S]) -> S:
    """Return `found` converted to the type `kind`, which is a Struct or contains Structs at any depth.

    A value that is such a Struct already is returned unchanged.

    Args:
        found: the Struct, a mapping, or an object with the attributes of its fields, such as a model.
        kind: a Struct, a generic Struct with its types, or a list, dict or union of them.

    Raises:
        AnswerError: an attribute without a default is missing, or a value has another type.
        NotLoadedError: an attribute of a model was not loaded.
    """
    wanted: Any = kind
    answer: S = converter(wanted)(found)
    return answer


@functools.lru_cache(maxsize=1024)
def converter(kind: Any) -> Reader:
    """Return the function that converts to one type.

    Raises:
        TypeError: the type cannot be encoded as JSON.
    """
    msgspec.json.schema(kind)  # raises the TypeError
    read = Compiler().reader_of(types.type_info(kind))
    if isinstance(read, Structure):
        return read

    def convert_whole(found: Any) -> Any:
        return validated(found if read is None else read(found), kind, found)

    return convert_whole


def validated(values: Any, kind: Any, found: Any) -> Any:
    """Check values against a type; Structs inside were checked before."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        name = getattr(kind, "__name__", kind)
        raise AnswerError(f"{type(found).__name__} cannot be converted to {name}: {error}.") from error


class Compiler:
    """Creates the readers of a type; a type that contains itself gets one reader."""

    def __init__(self) -> None:
        self._structures: dict[int, Structure] = {}

    def reader_of(self, info: types.Type) -> Reader | None:  # noqa: PLR0911 - a table, read line by line
        """Return the reader of a value; None when the value contains nothing to read."""
        match info:
            case types.Metadata(type=inner):
                return self.reader_of(inner)
            case types.StructType() | types.DataclassType():
                return self._structure(info)
            case types.TypedDictType(fields=fields):
                return functools.partial(
                    read_fields, {one.encode_name: self.reader_of(one.type) for one in fields}
                )
            case types.NamedTupleType(fields=fields):
                return functools.partial(read_positions, tuple(self.reader_of(one.type) for one in fields))
            case types.TupleType(item_types=kinds):
                return functools.partial(read_positions, tuple(map(self.reader_of, kinds)))
            case types.CollectionType(item_type=kind):
                return functools.partial(read_items, self.reader_of(kind))
            case types.DictType(value_type=kind) | types.FrozenDictType(value_type=kind):
                return functools.partial(read_values, self.reader_of(kind))
            case types.UnionType(types=kinds):
                return self._union(kinds)
            case _:
                return None

    def _structure(self, info: types.StructType | types.DataclassType) -> "Structure":
        found = self._structures.get(id(info))
        if found is None:
            found = self._structures[id(info)] = Structure(info)
            found.inner = {
                one.name: read for one in info.fields if (read := self.reader_of(one.type)) is not None
            }
        return found

    def _union(self, kinds: Iterable[types.Type]) -> Reader | None:
        readers = [(kind, read) for kind in kinds if (read := self.reader_of(kind)) is not None]
        return Union(readers) if readers else None


class Structure:
    """Converts to one Struct or dataclass."""

    def __init__(self, info: types.StructType | types.DataclassType) -> None:
        self.kind: Any = info.cls
        self.made = get_origin(info.cls) or info.cls
        self.fields = info.fields
        self.array_like = isinstance(info, types.StructType) and info.array_like
        self.inner: dict[str, Reader] = {}

    def __call__(self, found: Any) -> Any:
        """Return the Struct; if the value is one already, only its contents are converted."""
        if type(found) is self.made:
            held = {name: value for name in self.inner if (value := getattr(found, name)) is not UNSET}
            inside = {name: self.inner[name](value) for name, value in held.items()}
            if all(inside[name] is value for name, value in held.items()):
                return found
            return self.make(self.attributes_of(found, inside), found)
        if isinstance(found, Mapping):
            return validated(self.items_of(found), self.kind, found)
        if isinstance(found, ATOMS + ARRAYS):
            return validated(found, self.kind, found)
        return self.make(self.attributes_of(found, {}), found)

    def make(self, values: dict[str, Any], found: Any) -> Any:
        """Return the Struct, given its values by their encoded names."""
        if self.array_like:
            positions = [values.get(one.encode_name, default_of(one)) for one in self.fields]
            return validated(positions, self.kind, found)
        return validated(values, self.kind, found)

    def items_of(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the converted fields of a mapping by their encoded names, and its other items unchanged."""
        values = dict(found)
        for one in self.fields:
            value = values.get(one.encode_name, UNSET)
            if value is UNSET:
                values.pop(one.encode_name, None)
            elif (read := self.inner.get(one.name)) is not None:
                values[one.encode_name] = read(value)
        return values

    def attributes_of(self, found: Any, inside: Mapping[str, Any]) -> dict[str, Any]:
        """Return all fields of an object; an attribute that the object does not have gets its default."""
        values = {}
        for one in self.fields:
            if one.name in inside:
                values[one.encode_name] = inside[one.name]
                continue
            try:
                value = getattr(found, one.name)
            except AttributeError:
                if inspect.getattr_static(found, one.name, UNSET) is not UNSET:
                    raise  # a property that failed
                if one.required:
                    raise AnswerError(
                        f"{type(found).__name__} has no attribute {one.name!r}, which {self.made.__name__} requires."
                    ) from None
                continue
            if value is not UNSET:
                read = self.inner.get(one.name)
                values[one.encode_name] = value if read is None else read(value)
        return values


class Union:
    """Converts a value of one of several types."""

    def __init__(self, readers: Iterable[tuple[types.Type, Reader]]) -> None:
        sorts: tuple[list[Reader], list[Reader]] = ([], [])
        for kind, read in readers:
            is_array = isinstance(kind, types.CollectionType | types.TupleType | types.NamedTupleType)
            sorts[is_array].append(read)
        self.objects, self.arrays = sorts

    def __call__(self, found: Any) -> Any:
        """Return the value as the only type that matches it; the tag distinguishes several mappings."""
        if isinstance(found, ATOMS):
            return found
        for read in self.objects:
            if isinstance(read, Structure) and type(found) is read.made:
                return read(found)
        if isinstance(found, ARRAYS) or not self.objects:
            return self.arrays[0](found) if self.arrays else found
        if len(self.objects) == 1:
            return self.objects[0](found)
        if isinstance(found, Mapping):
            return found
        names = ", ".join(one.made.__name__ for one in self.objects if isinstance(one, Structure))
        raise AnswerError(f"{type(found).__name__} matches several of the types {names}: return one of them.")


def default_of(field: types.Field) -> Any:
    """Return the default of an omitted field."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def read_items(read: Reader | None, found: Any) -> Any:
    """Return each item of an array converted; any other collection becomes a list."""
    if isinstance(found, TEXTS) or not isinstance(found, Iterable):
        return found
    items = list(found) if read is None else [read(one) for one in found]
    is_same = isinstance(found, ARRAYS) and all(map(is_, items, found))
    return found if is_same else items


def read_positions(reads: tuple[Reader | None, ...], found: Any) -> Any:
    """Return the items of an array of fixed length, converted."""
    if not isinstance(found, list | tuple) or len(found) != len(reads):
        return found
    items = [one if read is None else read(one) for read, one in zip(reads, found, strict=True)]
    return found if all(map(is_, items, found)) else items


def read_values(read: Reader | None, found: Any) -> Any:
    """Return a mapping with each value converted."""
    if not isinstance(found, Mapping):
        return found
    values = {name: one if read is None else read(one) for name, one in found.items()}
    return found if isinstance(found, dict) and all(map(is_, values.values(), found.values())) else values


def read_fields(reads: Mapping[str, Reader | None], found: Any) -> Any:
    """Return a mapping with the values of the given names converted."""
    if not isinstance(found, Mapping):
        return found
    values = dict(found)
    for name in values.keys() & reads.keys():
        read = reads[name]
        if read is not None:
            values[name] = read(values[name])
    return found if isinstance(found, dict) and all(map(is_, values.values(), found.values())) else values
