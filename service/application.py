"""The application of a team, named as `orders:create_app`: a module, and a function that builds the application."""

import asyncio
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from starlette.types import ASGIApp

from latchkey.service.declaration import Declaration, reading_declarations
from latchkey.service.parts import parts_of

ENTRY_POINTS = "latchkey.app"

Factory = Callable[[], ASGIApp]


class ApplicationError(ValueError):
    """The application does not exist; the message explains what is missing."""


def installed_application() -> str | None:
    """Return the application that an installed package names in its entry point `latchkey.app`; None without one.

    Raises:
        ApplicationError: several packages name one.
    """
    found = sorted({one.value for one in entry_points(group=ENTRY_POINTS)})
    if len(found) > 1:
        raise ApplicationError(
            f"several applications are installed, {', '.join(found)}: select one with --app or LATCHKEY_APP."
        )
    return found[0] if found else None


def find_factory(reference: str) -> Factory:
    """Import the function that builds an application, from the working directory or an installed package.

    Raises:
        ApplicationError: there is no such function.
    """
    module_name, _, path = reference.partition(":")
    if not module_name or not path:
        raise ApplicationError(
            f"{reference!r} names no application: name a module and a function, as in orders:create_app."
        )
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - compared with texts
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and imports one that does not
        raise ApplicationError(
            f"{reference}: there is no module {error.name}, neither in {here} nor among the installed packages."
        ) from None
    try:
        found: Any = functools.reduce(getattr, path.split("."), module)
    except AttributeError:
        raise ApplicationError(f"{reference}: the module {module_name} has no {path}.") from None
    require_factory(reference, found)
    factory: Factory = found
    return factory


def require_factory(reference: str, found: Any) -> None:
    """Raise an error for an object that cannot be called to build an application."""
    needed = "it must be a function that takes no argument and returns the application"
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise ApplicationError(f"{reference} is not a suitable function: {needed}.")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ApplicationError(f"{reference}: {needed} ({error}).") from None


def read_declaration(reference: str) -> Declaration:
    """Build an application to read its declaration, and close it again; no connection is opened.

    Raises:
        ApplicationError: there is no such function, or it builds no application.
    """
    with reading_declarations() as found:
        factory = find_factory(reference)
        try:
            factory()
        finally:
            for one in found:
                asyncio.run(close(one))
    if not found:
        raise ApplicationError(f"{reference} builds no application: it does not call latchkey.create_app.")
    return found[-1]


async def close(declaration: Declaration) -> None:
    """Close everything that an application opened when it was built."""
    parts = parts_of(declaration.app)
    await parts.revocations.close()
    await parts.db.close()
