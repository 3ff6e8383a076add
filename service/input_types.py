"""The types of an endpoint's input, checked when its route is declared."""

from collections.abc import Mapping
from typing import Any

import msgspec


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
