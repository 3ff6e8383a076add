"""The declaration of an application, for commands that do not serve it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec
from starlette.applications import Starlette

from latchkey.service.database.schema import Schema
from latchkey.service.operation import Operation
from latchkey.service.settings import Settings


class Declaration(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The arguments of `create_app`, with Latchkey's own operations, and the application that it built."""

    app: Starlette
    settings: Settings
    operations: tuple[Operation, ...]
    schemas: tuple[Schema, ...]
    scopes: frozenset[str]


_reading: ContextVar[list[Declaration] | None] = ContextVar("latchkey_declarations", default=None)


@contextmanager
def reading_declarations() -> Iterator[list[Declaration]]:
    """Collect the declarations of `create_app` until the end of the block.

    An application that is built meanwhile is not served: it needs no key ring, and does not configure the logs.
    """
    found: list[Declaration] = []
    token = _reading.set(found)
    try:
        yield found
    finally:
        _reading.reset(token)


def is_only_declared() -> bool:
    """Return whether the application is built only for its declaration."""
    return _reading.get() is not None


def declare(declaration: Declaration) -> None:
    """Pass a declaration to the command that collects it, if there is one."""
    found = _reading.get()
    if found is not None:
        found.append(declaration)
