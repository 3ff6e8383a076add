"""The private and undocumented names of other packages that Latchkey uses: the list is complete, and the names exist.

A new release of a package may remove one of them without notice. Then a test here fails and names what breaks.
`docs/decisions/0023-private-names-are-listed.md` compares each with the public way.
"""

import ast
import asyncio
import inspect
import pkgutil
import re
import sqlite3
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import aiosqlite
import asyncmy.connection
import msgspec
import pytest
import sqlalchemy.pool
import sqlalchemy.sql.expression
import sqlalchemy.sql.lambdas
import sqlalchemy.util
import sqlalchemy.util.concurrency
import uvicorn.lifespan.on
import uvicorn.protocols.http.httptools_impl

import latchkey
from latchkey.service.connections.protocol import BoundedProtocol

ROOT = Path(__file__).parent.parent
DOCUMENTED = {"_exit"}  # of the standard library's os
ROOMS = ("service", "middleware", "models", "migrations")


class Private(msgspec.Struct, frozen=True):
    """A private name, where it is used, and what breaks without it."""

    owner: Any
    name: str
    used_in: str
    breaks: str


async def connection() -> asyncmy.connection.Connection:
    """Return an instance, because a compiled class does not show its attributes; it needs a running loop."""
    return asyncmy.connection.Connection()  # type: ignore[no-untyped-call]


CONNECTION = asyncio.run(connection())
SQLITE_CONNECTION = aiosqlite.Connection(lambda: sqlite3.connect(":memory:"), 1)

PRIVATE = [
    Private(CONNECTION, "_execute_command", "service/database/driver.py",
            "the events of SQLAlchemy see about half of the round trips"),
    Private(CONNECTION, "_execute_command", "service/testing/wire.py", "as in the driver, for the tests of a team"),
    Private(CONNECTION, "_execute_command", "service/testing/moved_clock.py", "the time of a server cannot be moved"),
    Private(asyncmy.connection.PreparedStatement, "_statement_id", "service/testing/wire.py", "a prepared statement is counted without its text"),
    Private(CONNECTION, "_acquire_cached_statement", "service/database/driver.py",
            "errors of preparing a statement are lost: half a transaction is committed on Galera"),
    Private(CONNECTION, "_read_query_result", "service/database/driver.py",
            "a status without flags is passed over: an ended transaction looks open"),
    Private(CONNECTION, "_fill_buffer", "service/database/driver.py",
            "a server that does not answer is waited for without a limit"),
    Private(CONNECTION, "_result", "service/database/driver.py", "as `_read_query_result`"),
    Private(CONNECTION, "_transport", "service/database/driver.py", "as `_fill_buffer`"),
    Private(sqlalchemy.pool.AsyncAdaptedQueuePool, "_do_get", "service/database/pool.py",
            "newcomers overtake those that wait for a connection"),
    Private(sqlalchemy.pool.AsyncAdaptedQueuePool, "_do_return_conn", "service/database/pool.py", "as `_do_get`"),
    Private(sqlalchemy.pool.AsyncAdaptedQueuePool, "_dec_overflow", "service/database/pool.py",
            "a waiter does not learn that it may open a connection"),
    Private(sqlalchemy.pool.Pool, "_invalidate", "service/database/prepared.py",
            "after a restart of the server each pooled connection costs one read that is repeated"),
    Private(sqlalchemy.sql.lambdas.LambdaElement, "_resolved", "service/database/statements.py",
            "a lambda statement counts as a write"),
    Private(sqlalchemy.sql.expression.Select, "_for_update_arg", "service/database/statements.py",
            "a SELECT FOR UPDATE is read on the replica"),
    Private(sqlalchemy.sql.expression.Select, "_generate_cache_key", "models/into.py",
            "a read into a Struct with an expression of SQLAlchemy is compiled again"),
    Private(sqlalchemy.sql.expression.ColumnElement, "_from_objects", "models/reach.py",
            "a relation that is sorted by its secondary table is read in the wrong order and not refused"),
    Private(uvicorn.protocols.http.httptools_impl.HttpToolsProtocol, "_should_upgrade",
            "service/connections/protocol.py", "the rest of a connection after an upgrade is read as requests"),
]  # fmt: skip

# Undocumented names with a public spelling, or like an attribute of Latchkey: owner, name, and where it is used.
UNDOCUMENTED = [
    (SQLITE_CONNECTION, "_thread", "service/database/sqlite.py"),
    (SQLITE_CONNECTION, "_running", "service/database/sqlite.py"),
    (sqlalchemy.util, "await_only", "service/database/pool.py"),
    (sqlalchemy.util, "await_only", "service/database/resending.py"),
    (sqlalchemy.util.concurrency, "await_", "service/database/routing.py"),
    (sqlalchemy.util.concurrency, "in_greenlet", "service/database/routing.py"),
    (sqlalchemy.sql.lambdas, "LambdaElement", "service/database/statements.py"),
    (uvicorn.protocols.http.httptools_impl, "STATUS_LINE", "service/connections/protocol.py"),
    (uvicorn.protocols.http.httptools_impl, "RequestResponseCycle", "service/connections/protocol.py"),
    (uvicorn.protocols.http.httptools_impl, "HttpToolsProtocol", "service/connections/protocol.py"),
    (uvicorn.lifespan.on, "LifespanOn", "service/connections/adoption.py"),
]


def ids(row: Private) -> str:
    return f"{getattr(row.owner, '__name__', 'Connection')}.{row.name}"


@pytest.mark.parametrize("row", PRIVATE, ids=ids)
def test_it_is_there(row: Private) -> None:
    assert hasattr(row.owner, row.name), f"{ids(row)} is gone: {row.breaks}"
    assert row.name in (ROOT / row.used_in).read_text(), "it is used there no more: take it off the list"


@pytest.mark.parametrize(("module", "name", "used_in"), UNDOCUMENTED)
def test_it_is_there_too(module: Any, name: str, used_in: str) -> None:
    assert hasattr(module, name)
    assert name in (ROOT / used_in).read_text(), "it is used there no more: take it off the list"


def test_the_attributes_of_the_protocol_are_there() -> None:
    """uvicorn does not document the attributes of its protocol."""
    own = set(vars(BoundedProtocol)) | attributes_of(BoundedProtocol)
    base = uvicorn.protocols.http.httptools_impl.HttpToolsProtocol
    used = set(re.findall(r"self\.(\w+)", inspect.getsource(BoundedProtocol)))

    foreign = used - own
    assert foreign
    assert {name for name in foreign if name not in attributes_of(base) and not hasattr(base, name)} == set()


def test_the_list_is_complete() -> None:
    listed = {(row.used_in, row.name) for row in PRIVATE}

    assert set(private_attributes()) | set(overridden()) == listed


def attributes_of(kind: type) -> set[str]:
    """Return the names that the code of a class assigns on `self`."""
    return set(re.findall(r"self\.(\w+)\b[^=\n(]*=", inspect.getsource(kind)))


def private_attributes() -> Iterator[tuple[str, str]]:
    """Yield file and name of every private attribute that is read and that Latchkey does not define."""
    trees = {
        str(file.relative_to(ROOT)): ast.parse(file.read_text())
        for room in ROOMS
        for file in sorted((ROOT / room).rglob("*.py"))
    }
    own = {name for tree in trees.values() for name in defined(tree)}
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
                yield file, node.attr
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "getattr",
                "hasattr",
                "setattr",
            }:
                name = getattr(node.args[1], "value", "")
                if is_private(str(name)) and name not in own:
                    yield file, str(name)


def defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def overridden() -> Iterator[tuple[str, str]]:
    """Yield file and name of every private method of another package that a class of ours overrides."""
    for found in pkgutil.walk_packages(latchkey.__path__, "latchkey."):
        if ".versions." in found.name or found.name.endswith(("__main__", ".env")):
            continue
        for kind in vars(import_module(found.name)).values():
            if not inspect.isclass(kind) or kind.__module__ != found.name:
                continue
            for name, value in vars(kind).items():
                if not (is_private(name) and inspect.isfunction(value) and value.__module__ == found.name):
                    continue
                foreign = (base for base in kind.__mro__[1:] if not base.__module__.startswith("latchkey"))
                if any(name in vars(base) for base in foreign):
                    yield found.name.removeprefix("latchkey.").replace(".", "/") + ".py", name


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and len(name) > 1 and name not in DOCUMENTED
