"""The rules of a session: what it may do, which engines it uses, and the errors that refuse the rest (R6, R8)."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.database.positions import FetchAt, position_of
from latchkey.service.database.replica import Replica


class Engines(msgspec.Struct, frozen=True):
    """The engines of a session: `reader` and `writer` are on the primary, `replica` may be behind."""

    writer: AsyncEngine
    reader: AsyncEngine
    replica: AsyncEngine | None = None
    replica_state: Replica | None = None

    @property
    def all(self) -> list[AsyncEngine]:
        """Return the engines that exist."""
        probe = None if self.replica_state is None else self.replica_state.probe
        return [one for one in (self.writer, self.reader, self.replica, probe) if one is not None]

    @property
    def for_reads(self) -> AsyncEngine:
        """Return the engine for the reads of a safe method: the replica, if there is one and it is up."""
        state = self.replica_state
        return self.reader if state is None or not state.is_usable else state.engine

    def include(self, bind: object) -> bool:
        """Return whether `bind` is one of these engines."""
        return any(one.sync_engine is bind for one in self.all)


class Rules:
    """The rules of a session, set from outside, even before the session does anything."""

    __slots__ = (
        "before_write",
        "commit_forbidden",
        "engines",
        "position",
        "reads_from",
        "refusal",
        "task",
        "transactional",
    )

    def __init__(self, engines: Engines, task: "asyncio.Task[Any]") -> None:
        self.engines = engines
        self.task = task  # the only task that may use the session
        self.reads_from = engines.reader
        self.position: str | None = None  # of the primary, which the replica must have applied
        self.transactional = (
            False  # True sends every statement to the writer: for the endpoint of an unsafe method
        )
        self.before_write: Callable[[], None] | None = None
        self.refusal: type[RuntimeError] | None = None  # the error that refuses all further statements
        self.commit_forbidden = False  # True refuses every commit

    @property
    def needs_position(self) -> bool:
        """Return whether the next read is one on the replica that must see what was committed before it."""
        state = self.engines.replica_state
        return state is not None and state.sees_writes and self.reads_from is state.engine

    async def find_position(self) -> str:
        """Return the position of the primary that the next read must see.

        The primary is asked once, and again after each commit of the session.

        Raises:
            sqlalchemy.exc.TimeoutError: the primary cannot be asked.
        """
        if self.position is None:
            self.position = await position_of(self.engines.reader)
        return self.position

    async def fetch(self) -> FetchAt:
        """Return the function that sends a prepared statement to a replica which has applied the position."""
        return FetchAt(await self.find_position())

    def leave_replica(self, error: Exception) -> bool:
        """Read on the primary from now on, if a read failed because of the replica; return whether it did."""
        state = self.engines.replica_state
        if state is None or not state.is_cause_of(error, self.reads_from):
            return False
        self.reads_from = self.engines.reader
        return True
