"""What an application declares, for commands that do not serve it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec
from starlette.applications import Starlette

from latchkey.service.database.schema import Schema
from latchkey.service.operation import Operation
from latchkey.service.settings import Settings


class Declaration(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What `create_app` was given, with Latchkey's own operations, and what it made."""

    app: Starlette
    settings: Settings
    operations: tuple[Operation, ...]
    schemas: tuple[Schema, ...]
    scopes: frozenset[str]


_reading: ContextVar[list[Declaration] | None] = ContextVar("latchkey_declarations", default=None)


@contextmanager
def reading_declarations() -> Iterator[list[Declaration]]:
    """Collect what `create_app` declares until the end of the block.

    An application that is built meanwhile is not served: it needs no key ring, and leaves the logs as they are.
    """
    found: list[Declaration] = []
    token = _reading.set(found)
    try:
        yield found
    finally:
        _reading.reset(token)


def is_only_declared() -> bool:
    """Return whether the application is built for its declaration alone."""
    return _reading.get() is not None


def declare(declaration: Declaration) -> None:
    """Hand a declaration to the command that asks for it, if one does."""
    found = _reading.get()
    if found is not None:
        found.append(declaration)
