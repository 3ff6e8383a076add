"""The response to a value that its column cannot hold: `invalid_body` with a pointer if it is in the body, or `invalid_value`."""

import re
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError

from latchkey.models.errors import InvalidValueError
from latchkey.service.database.conflicts import refuses_value
from latchkey.service.problems import FieldError, Problem, bounded_pointer

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
    pointer = None if name is None else pointer_to(body, name, value)
    if pointer is None:
        return Problem("invalid_value", f"A value cannot be stored: {fault}.")
    pointer = bounded_pointer(pointer)
    return Problem(
        "invalid_body", f"The body is wrong at {pointer!r}: {fault}.", errors=[FieldError(pointer, fault)]
    )


def raise_invalid_value(error: BaseException, body: Any) -> None:
    """Raise the problem for an error about a value; return for any other error."""
    problem = invalid_value(error, body)
    if problem is not None:
        raise problem from error


def pointer_to(part: Any, name: str, value: Any) -> str | None:
    """Return the JSON pointer (RFC 6901) to the field of a body that has a name and a value; None if there is none."""
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
        if (rest := pointer_to(inner, name, value)) is not None:
            return step + rest
    return None
