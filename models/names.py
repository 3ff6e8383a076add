"""The names that a model cannot give its attributes, because verbs and their arguments use them.

They are derived from the verbs: everything that the base defines, and every argument of the verbs that also accept
attributes by name, `create(session=None, …, **values)`.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import InspectionAttr

from latchkey.models.errors import NameTakenError
from latchkey.models.lookups import SEPARATOR


def arguments_beside_names(*owners: type[Any]) -> Mapping[str, str]:
    """Return the arguments of all methods that also accept attributes by name, each with the first such method."""
    found: dict[str, str] = {}
    for owner in owners:
        for name, method in vars(owner).items():
            function = getattr(method, "__func__", None) or getattr(method, "function", method)
            if not inspect.isfunction(function):
                continue
            parameters = inspect.signature(function).parameters.values()
            if any(one.kind is one.VAR_KEYWORD for one in parameters):
                taken = (
                    one.name for one in parameters if one.kind not in {one.VAR_KEYWORD, one.VAR_POSITIONAL}
                )
                found |= {one: name for one in taken if one not in found}
    return found


def require_free(model: type[Any], base: type[Any], arguments: Mapping[str, str]) -> None:
    """Raise an error for a model with an attribute that hides a verb, or is hidden by one.

    Raises:
        NameTakenError: the model has one; the message shows another name that keeps the column.
    """
    taken = set(dir(base))
    for name in mapped_names(model, base):
        if name in taken:
            raise NameTakenError(model.__name__, name, f"every model has `{name}`")
        if name in arguments:
            raise NameTakenError(model.__name__, name, f"`{arguments[name]}` has an argument of this name")
        if SEPARATOR in name:
            raise NameTakenError(
                model.__name__, name, f"a lookup has `{SEPARATOR}` between a name and an operator"
            )


def mapped_names(model: type[Any], base: type[Any]) -> Iterable[str]:
    """Return the mapped attributes of a class, including hybrid properties and proxies, without configuring its mapper."""
    classes = (one for one in model.__mro__ if one not in base.__mro__)
    attributes = (item for one in classes for item in vars(one).items())
    return dict.fromkeys(
        name for name, value in attributes if isinstance(value, InspectionAttr) and value.is_attribute
    )
