"""The verification of the audit log: every sealed event, the chain, the head, and heads that were stored outside."""

import hmac
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.service.audit import rows
from latchkey.service.audit.seal import (
    START,
    Head,
    Seal,
    has_erased_address,
    has_erased_values,
    is_proved,
    seal_of,
)
from latchkey.service.authentication.keyring import KeyRing, KeyRingError

BATCH_EVENTS = 1000


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verification; without faults the log is as it was sealed."""

    sealed: int
    unsealed: int
    erased: int
    """The number of sealed events whose values or address were erased, and cannot be verified any more."""
    head: Head | None
    faults: Sequence[str]


class Verification:
    """One verification of the log, event by event.

    Args:
        keyring: with every key that has sealed an event.
        outside: heads that were stored outside of the database.
    """

    def __init__(self, keyring: KeyRing, outside: Iterable[Head] = ()) -> None:
        self.keyring = keyring
        self.faults: list[str] = []
        self.sealed = 0
        self.erased = 0
        self._outside = list(outside)
        self._wanted = {one.position for one in self._outside}
        self._chains: dict[int, bytes] = {}
        self._last = Head(0, START)
        self._last_id: Any = None
        self._links = True  # False after an event whose chain is not known
        self._foreign_keys: dict[str, int] = {}

    async def run(self, connection: AsyncConnection) -> Report:
        """Verify the whole log; events that are sealed meanwhile are verified too."""
        while True:
            seen = await self._read(connection)
            found = await rows.read_head(connection)
            if found is None or found[0].position <= self._last.position or not seen:
                break
        self._check_head(found)
        self._check_outside()
        self.faults += [f"{count} events: {reason}" for reason, count in self._foreign_keys.items()]
        if others := await rows.count_outside(connection, self._last.position, self.sealed):
            self.faults.append(f"{others} events: their position is not from 1 on, or not theirs alone.")
        return Report(
            sealed=self.sealed,
            unsealed=await rows.count_unsealed(connection),
            erased=self.erased,
            head=None if found is None else found[0],
            faults=self.faults,
        )

    async def _read(self, connection: AsyncConnection) -> int:
        """Verify the events after the last one, and return their number."""
        seen = 0
        while True:
            try:
                batch = (await connection.execute(rows.sealed_after(self._last.position, BATCH_EVENTS))).all()
            except (TypeError, ValueError):  # a value that the service never writes
                batch = []
                count = await self._read_each(connection)
            else:
                count = len(batch)
            for event in batch:
                self._check(event)
            seen += count
            if count < BATCH_EVENTS:
                return seen

    async def _read_each(self, connection: AsyncConnection) -> int:
        """Verify a batch of events one by one, because one of them cannot be read, and return their number."""
        found = (await connection.execute(rows.positions_after(self._last.position, BATCH_EVENTS))).scalars()
        positions = list(found)
        for position in positions:
            try:
                event = (await connection.execute(rows.sealed_after(position - 1, 1))).one()
            except (TypeError, ValueError):
                self._note_position(position, before=None)
                self.faults.append(f"position {position}: the event was changed and cannot be read.")
                self._pass(Head(position, START), None, is_known=False)
            else:
                self._check(event)
        return len(positions)

    def _note_position(self, position: int, *, before: Any) -> None:
        """Report the events that are missing before a position."""
        if position > self._last.position + 1:
            self._note_removed(self._last.position + 1, position - 1, before=before)
            self._links = False

    def _pass(self, head: Head, event_id: Any, *, is_known: bool) -> None:
        """Continue after an event; the chain at it may not be known."""
        self.sealed += 1
        self._last, self._last_id, self._links = head, event_id, is_known
        if is_known and head.position in self._wanted:
            self._chains[head.position] = head.chain

    def _check(self, event: Row[*tuple[Any, ...]]) -> None:
        position = event.position
        self._note_position(position, before=event.id)
        seal = Seal.from_bytes(None if event.seal is None else bytes(event.seal))
        if seal is None:
            self.faults.append(f"position {position}, event {event.id}: its seal was removed or changed.")
        else:
            self._compare(event, seal)
        chain = START if seal is None else seal.chain
        self._pass(Head(position, chain), event.id, is_known=seal is not None)

    def _compare(self, event: Row[*tuple[Any, ...]], seal: Seal) -> None:
        where = f"position {event.position}, event {event.id}"
        content = rows.content_of(event)
        self.erased += has_erased_values(content) or has_erased_address(content)
        try:
            right = seal_of(
                self.keyring,
                content,
                event.position,
                self._last.chain,
                key_id=seal.key_id,
                salts=seal.salts,
            )
        except KeyRingError as error:
            reason = str(error)
            self._foreign_keys[reason] = self._foreign_keys.get(reason, 0) + 1
            return
        if not hmac.compare_digest(right.content, seal.content):
            self.faults.append(f"{where}: it was changed.")
        elif not hmac.compare_digest(right.place, seal.place):
            self.faults.append(f"{where}: it was moved from another position.")
        elif self._links and not hmac.compare_digest(right.chain, seal.chain):
            self.faults.append(f"{where}: it was sealed after another event than the one before it.")

    def _note_removed(self, first: int, last: int, *, before: Any) -> None:
        what = (
            f"position {first}: the event was"
            if first == last
            else f"positions {first} to {last}: the events were"
        )
        neighbours = [
            text
            for text, event in (
                (f"after event {self._last_id}", self._last_id),
                (f"before event {before}", before),
            )
            if event is not None
        ]
        self.faults.append(f"{what} removed{' ' if neighbours else ''}{' and '.join(neighbours)}.")

    def _check_head(self, found: tuple[Head, bytes] | None) -> None:
        if found is None:
            if self._last.position:
                self.faults.append("the head was removed.")
            return
        head, proof = found
        try:
            if not is_proved(self.keyring, head, proof):
                self.faults.append("the head was changed.")
                return
        except KeyRingError as error:
            self.faults.append(f"the head: {error}")
            return
        if head.position > self._last.position:
            self._note_removed(self._last.position + 1, head.position, before=None)
        elif head.position < self._last.position:
            self.faults.append(
                f"positions {head.position + 1} to {self._last.position}: the events were added after the head."
            )
        elif not hmac.compare_digest(head.chain, self._last.chain):
            self.faults.append(f"position {head.position}: the event is not the one that the head names.")

    def _check_outside(self) -> None:
        for head in self._outside:
            chain = self._chains.get(head.position)
            if chain is None:
                self.faults.append(f"position {head.position}: a head outside names it, and it is not there.")
            elif not hmac.compare_digest(chain, head.chain):
                self.faults.append(
                    f"position {head.position}: the event is not the one that a head outside names."
                )
