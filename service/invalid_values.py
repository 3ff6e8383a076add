"""The response to a value that its column cannot hold, by the part of the request that contains it.

In the body it is `invalid_body` with a pointer, and anywhere else `invalid_value`. An integer of more than 64 bits, which no
row can have, is also found in the path, which then does not exist, and in the query.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError

from latchkey.models.bounds import BEYOND, is_beyond
from latchkey.models.errors import InvalidValueError
from latchkey.service.database.conflicts import refuses_value
from latchkey.service.input_types import NOT_FINITE, is_finite
from latchkey.service.problems import FieldError, Problem, bounded_pointer, wrong_parameter

COLUMN = re.compile(r"column '?(?:`[^`]*`\.){0,2}[`']?(?P<name>\w+)[`']? at row")
REFUSED = "the database cannot store the value"
UNKNOWN = object()
"""The value of a column that the server has refused: its message may have shortened it."""


def invalid_value(error: BaseException, body: Any = None) -> Problem | None:
    """Return the problem for an error about a value; None for any other error.

    Args:
        error: of the models, or of the server for a statement that they have not checked.
        body: the decoded body, in which the value is searched.
    """
    name: str | None
    if isinstance(error, InvalidValueError):
        name, fault, value = error.name, error.fault, error.value
    elif isinstance(error, DBAPIError) and refuses_value(error):
        found = COLUMN.search(str(error.orig))
        name, fault, value = found and found["name"], REFUSED, UNKNOWN
    else:
        return None
    if is_beyond(value):
        name = None  # it may have been compared with the column of another name
    pointer = None if name is None and not is_beyond(value) else pointer_to(body, name, value)
    if pointer is None:
        return Problem("invalid_value", f"A value cannot be stored: {fault}.")
    pointer = bounded_pointer(pointer)
    return Problem(
        "invalid_body", f"The body is wrong at {pointer!r}: {fault}.", errors=[FieldError(pointer, fault)]
    )


def raise_invalid_value(error: BaseException, arguments: Mapping[str, Any], path: Mapping[str, str]) -> None:
    """Raise the problem for an error about a value; return for any other error.

    Args:
        error: of the models, or of the server.
        arguments: of the endpoint, with its `query` and its `body`.
        path: the parameters of the path.
    """
    if isinstance(error, InvalidValueError) and is_beyond(error.value):
        if str(error.value) in path.values():
            raise Problem("not_found") from error
        require_narrow(arguments.get("query"), error.value)
    problem = invalid_value(error, arguments.get("body"))
    if problem is not None:
        raise problem from error


def require_narrow(query: msgspec.Struct | None, wide: object = None) -> None:
    """Raise a problem for a parameter that is not finite, is an integer of more than 64 bits, or is the text of `wide`."""
    if query is None:
        return
    for field, encoded in zip(query.__struct_fields__, query.__struct_encode_fields__, strict=True):
        value = getattr(query, field)
        if is_beyond(value) or (wide is not None and value == str(wide)):
            raise wrong_parameter(encoded, BEYOND)
        if not is_finite(value):
            raise wrong_parameter(encoded, NOT_FINITE)


def pointer_to(part: Any, name: str | None, value: Any) -> str | None:
    """Return the JSON pointer (RFC 6901) to a value in a body, in a field with a name or in any; None if there is none."""
    steps: list[tuple[str, Any]] = []
    if isinstance(part, msgspec.Struct):
        for field, encoded in zip(part.__struct_fields__, part.__struct_encode_fields__, strict=True):
            inner = getattr(part, field)
            step = "/" + encoded.replace("~", "~0").replace("/", "~1")
            if field == name and (value is UNKNOWN or inner is value or inner == value):
                return step
            steps.append((step, inner))
    elif isinstance(part, list | tuple):
        steps = [(f"/{place}", inner) for place, inner in enumerate(part)]
    for step, inner in steps:
        if name is None and type(inner) is int and inner == value:
            return step
        if (rest := pointer_to(inner, name, value)) is not None:
            return step + rest
    return None
