"""Convert the value of a column to the value of a Struct's field."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from sqlalchemy import Column, Label
from sqlalchemy.types import TypeEngine

from latchkey.models.errors import StructError

Fit = Callable[[Any], Any]


class Field(msgspec.Struct, frozen=True):
    """A field of a Struct, with its Python name."""

    struct: type[msgspec.Struct]
    name: str
    annotation: Any
    has_default: bool

    @property
    def core(self) -> Any:
        """Return its type without None, UNSET and annotations."""
        return core_of(self.annotation)[0]

    @property
    def allows_none(self) -> bool:
        """Return whether None is a valid value."""
        return core_of(self.annotation)[1]

    def error(self, sentence: str) -> StructError:
        """Return an error that names the field."""
        return StructError(f"{self.struct.__name__}.{self.name}: {sentence}")


def fields_of(struct: Any) -> list[Field]:
    """Return the fields of a Struct in their order; the Struct may be generic, with types given.

    Raises:
        TypeError: it is not a Struct.
    """
    origin = get_origin(struct) or struct
    if not (isinstance(origin, type) and issubclass(origin, msgspec.Struct)):
        raise TypeError(f"into={struct!r} is no msgspec.Struct.")
    hints = get_type_hints(origin, include_extras=True)
    given = dict(zip(getattr(origin, "__parameters__", ()), get_args(struct), strict=False))
    described = msgspec.structs.fields(struct)
    return [
        Field(
            struct=origin,
            name=one.name,
            annotation=substituted(hints[one.name], given),
            has_default=not one.required,
        )
        for one in described
    ]


def substituted(annotation: Any, given: Mapping[Any, Any]) -> Any:
    """Replace the type variables of a generic Struct by the types that it was given."""
    if isinstance(annotation, TypeVar):
        return given.get(annotation, Any)
    parameters = getattr(annotation, "__parameters__", ())
    return annotation[tuple(given.get(one, Any) for one in parameters)] if parameters else annotation


def core_of(annotation: Any) -> tuple[Any, bool]:
    """Return a type without None, UNSET and annotations, and whether None is one of its values."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation is Any:
        return Any, True
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation, annotation is type(None)
    parts = get_args(annotation)
    kept = tuple(one for one in parts if one is not type(None) and one is not msgspec.UnsetType)
    core: Any = Union[kept] if kept else type(None)  # noqa: UP007 - of a tuple
    return core_of(core)[0] if len(kept) == 1 else core, type(None) in parts


def fit_of(field: Field, column: Any, *, may_be_null: bool) -> Fit | None:
    """Return the conversion of a column's value, as SQLAlchemy reads it, for a field; None if it needs no conversion.

    Args:
        field: the field that gets the value.
        column: an expression of a SELECT; only a column of a table is known to have values of its own type.
        may_be_null: whether the value may be NULL.

    Raises:
        StructError: no value of the column's type is valid for the field.
    """
    annotation = field.annotation
    if annotation is Any:
        return None
    known = python_type_of(column)
    if known is None or field.core is not known or get_origin(annotation) is Annotated:
        require_possible(field, column.type, known)
        return converter_of(field)
    return None if field.allows_none or not may_be_null else refuser_of(field)


def python_type_of(column: Any) -> type | None:
    """Return the type of a column's values where it is certain: for a column of a table that is not JSON."""
    element = column.element if isinstance(column, Label) else column
    found: type = object
    if isinstance(getattr(element, "__clause_element__", lambda: element)(), Column):
        found = column.type.python_type
    return None if found is object else found


def require_possible(field: Field, kind: TypeEngine[Any], known: type | None) -> None:
    """Raise `StructError` for a field whose type no value of the column can have."""
    if known is None or known not in SAMPLES:
        return
    sample = SAMPLES[known]
    try:
        converter_of(field)(sample)
    except StructError as error:
        if ", got `" in str(error):
            raise field.error(
                f"it is {readable(field.annotation)}, and the column is {type(kind).__name__}, "
                f"whose values are {known.__name__}."
            ) from None


SAMPLES: Mapping[Any, Any] = {str: "", int: 0, bytes: b"", bool: False, float: 0.5, Decimal: Decimal(0)}
"""A sample value of each type that msgspec can convert to others; other types cannot be checked in advance."""


def readable(annotation: Any) -> str:
    """Return a type as it is written in source code."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def refuser_of(field: Field) -> Fit:
    """Return a function that refuses None and returns any other value."""

    def require_value(value: Any) -> Any:
        if value is None:
            raise field.error("the value is NULL, and the field is not `| None`.")
        return value

    return require_value


def converter_of(field: Field) -> Fit:
    """Return a function that converts values to the type of a field, as it would convert a response."""
    annotation, core = field.annotation, field.core

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, annotation, from_attributes=True)
        except msgspec.ValidationError as error:
            number = whole_number(value, core)
            if number is not None:
                return convert(number)
            if value is None:
                raise field.error("the value is NULL, and the field is not `| None`.") from None
            raise field.error(f"{error}.") from None

    return convert


def whole_number(value: Any, wanted: Any) -> int | bool | None:
    """Return a whole number of another type: on MySQL a sum is a Decimal, and a truth value is 0 or 1."""
    if type(value) is wanted or not isinstance(value, int | float | Decimal) or value % 1 != 0:
        return None
    if wanted is bool and value in {0, 1}:
        return bool(value)
    return int(value) if wanted is int else None
