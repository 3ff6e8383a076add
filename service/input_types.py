"""The types of an endpoint's input, checked when its route is declared."""

import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec

Decode = Callable[[bytes], Any]

NOT_FINITE = "Expected a finite number"


def fault_of(body: Any, query: Any, parameters: Mapping[str, Any], example: Any) -> str | None:
    """Return why the input of an endpoint cannot be decoded, as a sentence without its full stop; None if it can.

    Args:
        body: the type of the body; None for no body.
        query: the Struct of the query parameters, or None.
        parameters: the path parameters, each with its type.
        example: a body for OpenAPI, or None.
    """
    for name, kind in parameters.items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return f"{name} is in the path, so its type cannot be the Struct {kind.__name__}"
    for name, kind in {"body": body, "query": query, **parameters}.items():
        if kind is not None and (fault := fault_of_type(kind)):
            return f"the type of {name} cannot be decoded: {fault}"
    if example is None:
        return None
    if body is None:
        return "it has an example of a body, and the endpoint takes no body"
    try:
        msgspec.json.decode(msgspec.json.encode(example), type=body)
    except msgspec.ValidationError as error:
        return f"the example is no valid body: {error}"
    return None


def fault_of_type(kind: Any) -> str | None:
    """Return why msgspec cannot decode a type; None if it can."""
    try:
        msgspec.json.Decoder(kind)
    except (TypeError, NameError) as error:
        return str(error).partition("\n")[0].rstrip(".")
    return None


def decoder_of(kind: Any) -> Decode:
    """Return the decoder of a body, which refuses `"NaN"` and `"Infinity"` as decimals.

    A comparison with such a value raises an error, or is false in both directions.
    """
    decode = msgspec.json.Decoder(kind).decode
    if b'"decimal"' not in msgspec.json.encode(msgspec.json.schema(kind)):
        return decode  # JSON itself has no such number

    def decode_finite(raw: bytes) -> Any:
        found = decode(raw)
        for place, value in values_of(found, "$"):
            if not is_finite(value):
                raise msgspec.ValidationError(f"{NOT_FINITE} - at `{place}`")
        return found

    return decode_finite


def is_finite(value: object) -> bool:
    """Return whether a value is anything but an infinite number or NaN."""
    if isinstance(value, Decimal):
        return value.is_finite()
    return not isinstance(value, float) or math.isfinite(value)


def values_of(part: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Return the values in a body, each with its place in the notation of msgspec's errors."""
    if isinstance(part, msgspec.Struct):
        names = zip(part.__struct_fields__, part.__struct_encode_fields__, strict=True)
        inner = [(f"{place}.{encoded}", getattr(part, field)) for field, encoded in names]
    elif isinstance(part, Mapping):
        inner = [(f"{place}[...]", value) for value in part.values()]
    elif isinstance(part, list | tuple | set | frozenset):
        inner = [(f"{place}[{number}]", value) for number, value in enumerate(part)]
    else:
        yield place, part
        return
    for where, value in inner:
        yield from values_of(value, where)
