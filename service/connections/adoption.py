"""Determine which server runs the application, and bound its connections."""

import asyncio
import inspect
import logging
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from latchkey.service.connections.bounds import Bounds
from latchkey.service.connections.protocol import BoundedProtocol
from latchkey.service.connections.room import Room

log = logging.getLogger("latchkey.connections")

FILES_BESIDE = 256  # the open files of a worker in addition to its client connections


class ServerError(RuntimeError):
    """The server that runs the application has a fault that the application cannot repair."""


def bound_connections(bounds: Bounds) -> None:
    """Make the uvicorn that starts this application serve its connections with `BoundedProtocol`.

    Call it while the application starts, whatever command starts it: uvicorn looks its protocol up for each connection,
    and accepts none before the start is complete. Under another server nothing changes.

    Raises:
        ServerError: uvicorn was told to use a protocol that is not its own.
    """
    config = serving_config()
    if config is None:
        return
    protocol: Any = config.http_protocol_class
    if protocol not in {HttpToolsProtocol, H11Protocol}:
        raise ServerError(
            f"uvicorn would use {protocol!r}, which may treat trailers as headers and has no bounds: "
            "start it with --http httptools."
        )
    found: Any = config  # uvicorn expects a class, and calls it with the arguments of a connection
    found.http_protocol_class = partial(BoundedProtocol, bounds=fit(bounds), room=Room())


def serving_config() -> Config | None:
    """Return the configuration of the uvicorn whose lifespan task this is; None under another server."""
    runs = next(runners(asyncio.current_task()), None)
    return runs.config if isinstance(runs, LifespanOn) else None


def is_beside_uvicorn() -> bool:
    """Return whether uvicorn runs in this event loop, in whatever task."""
    return any(isinstance(one, LifespanOn | Server) for task in asyncio.all_tasks() for one in runners(task))


class ServerTrust:
    """Whether to trust what the server has parsed: it is not uvicorn, or the application has bounded its connections.

    If uvicorn does not run the startup of the application, this is detected when it serves a request.
    """

    def __init__(self) -> None:
        self._is_other_server = False

    def note_start(self) -> None:
        """Remember the server that starts the application."""
        self._is_other_server = not is_beside_uvicorn()

    def __call__(self) -> bool:
        """Return whether the server is trusted."""
        return self._is_other_server or not is_beside_uvicorn()


def runners(task: asyncio.Task[Any] | None) -> Iterator[object]:
    """Yield the objects whose methods a task runs, from the outermost coroutine to the innermost."""
    coroutine: object = task.get_coro() if task is not None else None
    while inspect.iscoroutine(coroutine):
        yield inspect.getcoroutinelocals(coroutine).get("self")
        coroutine = coroutine.cr_await


def fit(bounds: Bounds) -> Bounds:
    """Raise the process's limit of open files to the needs of the connections; if not permitted, lower their number."""
    if sys.platform == "win32":
        return bounds
    import resource  # noqa: PLC0415 - not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = bounds.connections + FILES_BESIDE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return bounds
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return bounds
    connections = max(1, allowed - FILES_BESIDE)
    log.warning(
        "%d open files are allowed: a worker accepts %d connections, not %d",
        allowed,
        connections,
        bounds.connections,
    )
    return msgspec.structs.replace(bounds, connections=connections)
