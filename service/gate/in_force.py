"""The rules in force: those of the file, and then those that are stored in the database."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.middleware.background import detach
from latchkey.models import GateRuleSet
from latchkey.service.gate.rules import Rules
from latchkey.service.gate.stored import ONLY_ROW, decoded, parsed
from latchkey.service.problems import Problem
from latchkey.service.rule_error import RuleError

log = logging.getLogger("latchkey.gate")

FRESH_S = 1.0
"""After this time a worker asks the database whether the stored rules have changed."""
TRUST_S = 30.0
"""So long the known rules stay in force while the database cannot be asked."""
DEADLINE_S = 2.0

_VERSION = select(GateRuleSet.version).where(GateRuleSet.id == ONLY_ROW)
_RULES = select(GateRuleSet.version, GateRuleSet.rules).where(GateRuleSet.id == ONLY_ROW)


class RulesInForce:
    """The rules of a worker, which are compared with the stored ones once a second while the gate is asked.

    Only a request to the gate causes a comparison, and waits for it, so that no decision is made by older rules, however long
    the gate was idle.

    Args:
        file: the rules of the file.
        engine: returns the engine to read with.
        clock: returns seconds.
    """

    def __init__(
        self, file: Rules, engine: Callable[[], AsyncEngine], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._engine = engine
        self._clock = clock
        self._version = 0
        self._rules = file
        self._asked_at = float("-inf")
        self._known_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    @property
    def file(self) -> Rules:
        """Return the rules of the file."""
        return self._file

    async def current(self) -> Rules:
        """Return the rules in force.

        Raises:
            Problem: `unavailable`, if the stored rules could not be read for some time.
        """
        now = self._clock()
        if now - self._asked_at >= FRESH_S:
            if self._reading is None:
                # In a task of its own: the request that starts it may be cancelled while others wait for it.
                self._reading = detach(self._read(now), name="the rules of the gate")
            await asyncio.shield(self._reading)
        if self._clock() - self._known_at > TRUST_S:
            raise Problem("unavailable", "The rules of the gate cannot be read.")
        return self._rules

    async def close(self) -> None:
        """Wait until nothing is read."""
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read(self, now: float) -> None:
        """Read the stored rules if their version has changed; a failure is logged, and the known ones stay."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._compare()
            self._known_at = now
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("the stored rules of the gate cannot be read: %s", getattr(error, "orig", error))
        except (msgspec.DecodeError, RuleError):
            log.exception("the stored rules of the gate cannot be used")
        finally:
            self._asked_at = now
            self._reading = None

    async def _compare(self) -> None:
        async with self._engine().connect() as connection:
            version = (await connection.execute(_VERSION)).scalar_one_or_none() or 0
            if version == self._version:
                return
            row = (await connection.execute(_RULES)).one_or_none()
        stored = [] if row is None else parsed(decoded(row.rules))
        self._rules = Rules([*self._file.all, *stored])
        self._version = 0 if row is None else row.version
        log.info("the stored rules of the gate have the version %d", self._version)
