"""Integers of more than 64 bits in a statement, which the drivers refuse with errors of their own."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ExceptionContext

from latchkey.models.bounds import BEYOND, is_beyond
from latchkey.models.errors import InvalidValueError


def refusal_of(error: BaseException | None, given: Any) -> InvalidValueError | None:
    """Return the error for a driver's refusal of an integer among the values of a statement; None for any other error."""
    if not isinstance(error, OverflowError | ValueError):
        return None
    wide = next((value for value in values_in(given) if is_beyond(value)), None)
    return None if wide is None else InvalidValueError("the statement", "value", BEYOND, wide)


def values_in(given: Any) -> Iterable[Any]:
    """Return the values of a statement, or of several executions of it."""
    if isinstance(given, Mapping):
        return given.values()
    if isinstance(given, list | tuple):
        return (
            value
            for one in given
            for value in (values_in(one) if isinstance(one, list | tuple | Mapping) else (one,))
        )
    return ()


def refuse_wide_integers(context: ExceptionContext) -> InvalidValueError | None:
    """Replace the driver's error; for SQLAlchemy's event `handle_error`."""
    return refusal_of(context.original_exception, context.parameters)
