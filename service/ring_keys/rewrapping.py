"""Encrypt all stored values with the first key of the ring, in short transactions, while the service is running.

Nothing is stored about the progress: a value shows which key encrypts it, so a process that was killed is continued by
the next one.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.service.audit.sealer import ChangedHeadError, renew_proof
from latchkey.service.authentication.keyring import KeyRing, KeyRingError
from latchkey.service.database.lock import locked
from latchkey.service.database.repeating import repeat
from latchkey.service.ring_keys.places import PLACES, Place, windows

BATCH_ROWS = 200  # of a transaction, whose row locks a rotation of one of these keys waits for
PAUSE_S = 0.01  # between two batches, so that other writers can proceed
MOST_ROUNDS = 10
MOST_FAULTS = 20  # that are named

Report = Callable[[int], None]
"""Called after each batch with the number of its values."""


class Rewrapped(msgspec.Struct, kw_only=True):
    """The result: the number of values that were encrypted anew, and of those that cannot be decrypted."""

    values: int = 0
    failed: int = 0
    faults: list[str] = msgspec.field(default_factory=list)
    """What cannot be decrypted and why; the first ones."""

    def note(self, what: str, error: Exception) -> None:
        """Add a value that cannot be decrypted."""
        self.failed += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(f"{what}: {error}")


async def rewrap(
    engine: AsyncEngine, reader: AsyncEngine, keyring: KeyRing, report: Report
) -> Rewrapped | None:
    """Encrypt every stored value with the first key of the ring; return None when another process is doing so.

    It looks again until a round finds nothing: meanwhile, a process with another first key may have stored values, and a
    rotation may have moved one.

    Args:
        engine: the transactional engine.
        reader: the AUTOCOMMIT engine on the primary.
        keyring: the ring.
        report: is called after each batch.
    """
    async with locked(engine, "rewrap") as connection, reader.connect() as reading:
        if connection is None:
            return None
        work = Rewrapping(connection, reading, keyring, report)
        for _ in range(MOST_ROUNDS):
            if not await work.run_round():
                break
    return work.done


class Rewrapping:
    """The work of one process: batches that are read on one connection and written on another."""

    def __init__(
        self, connection: AsyncConnection, reading: AsyncConnection, keyring: KeyRing, report: Report
    ) -> None:
        self.done = Rewrapped()
        self._connection = connection
        self._reading = reading
        self._keyring = keyring
        self._report = report

    async def run_round(self) -> int:
        """Encrypt what is there now, and return the number of values."""
        before = self.done.values
        self.done = Rewrapped(values=before)
        for place in PLACES:
            async for window in windows(self._reading, place.key[0]):
                await self._encrypt_window(place, window)
        await self._renew_proof()
        return self.done.values - before

    async def _encrypt_window(self, place: Place, window: ColumnElement[bool]) -> None:
        others = place.rows.where(window, place.not_of(self._keyring.first))
        others = others.order_by(*place.key).limit(BATCH_ROWS)
        statement = others
        while rows := (await self._reading.execute(statement)).all():
            self.done.values += await self._replace(place, self._encrypted(place, rows))
            self._report(len(rows))
            if len(rows) < BATCH_ROWS:
                return
            last = rows[-1][: len(place.key)]
            # The servers find the first row by a comparison of one column only.
            statement = others.where(place.key[0] >= last[0], tuple_(*place.key) > tuple_(*last))
            await asyncio.sleep(PAUSE_S)

    def _encrypted(self, place: Place, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
        """Return the parameters of the UPDATE for each row whose value can be decrypted, and note the others."""
        values = []
        for row in rows:
            try:
                new = place.encrypt(self._keyring, row)
            except KeyRingError as error:
                self.done.note(place.name(row), error)
            else:
                key = {f"key_{number}": row[number] for number in range(len(place.key))}
                values.append({**key, "old_value": row.sealed, "new_value": new})
        return values

    async def _replace(self, place: Place, values: list[dict[str, Any]]) -> int:
        """Store new values in one transaction, unless they have changed since; return their number."""
        if not values:
            return 0
        return await repeat(partial(self._update, place, values))

    async def _update(self, place: Place, values: list[dict[str, Any]]) -> int:
        async with self._connection.begin():
            return int((await self._connection.execute(place.replacement(), values)).rowcount)

    async def _renew_proof(self) -> None:
        """Prove the head of the audit log with the first key, as the next event will."""
        try:
            self.done.values += await renew_proof(self._connection, self._keyring)
        except (ChangedHeadError, KeyRingError) as error:
            self.done.note("the head of the audit log", error)
