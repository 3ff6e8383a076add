"""The sealer numbers and chains committed events, a few seconds after their COMMIT, so that writers never wait for it.

Every worker looks for unsealed events; the lock lets one worker at a time seal them. The head is locked as well: where
the lock is not valid for all processes, as on a Galera cluster or an SQLite file, the row still is.
"""

import asyncio
import logging
import random
import re
import time
from pathlib import Path

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.service.audit import rows
from latchkey.service.audit.seal import START, Head, is_proved, new_salts, prove_head, seal_of
from latchkey.service.authentication.keyring import KeyRing, ring_key_of
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.conflicts import log_failure
from latchkey.service.database.lock import locked

log = logging.getLogger("latchkey.audit")

SEAL_EVERY_S = 2.0  # varied by up to a half, so that an event waits at most 3 s
BATCH_EVENTS = 1000
LOG_EVERY_S = 60.0


class ChangedHeadError(Exception):
    """The stored head of the audit log was not written by the owner of the key ring."""


class Sealer:
    """Seals the events of one database, and reports the head outside of it.

    Args:
        db: the database.
        keyring: whose first key seals.
        head_path: a file to which each new head is appended; None for none.
    """

    def __init__(self, db: SQLAlchemy, keyring: KeyRing, head_path: str | None = None) -> None:
        self._db = db
        self._keyring = keyring
        self._head_file = None if head_path is None else Path(head_path)
        self._logged_at = -LOG_EVERY_S

    async def seal_for_ever(self) -> None:
        """Seal new events every few seconds until cancelled."""
        while True:
            await asyncio.sleep(SEAL_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            try:
                await self.seal()
            except Exception as error:  # noqa: BLE001 - it is logged, and tried again
                log_failure(log, "audit events could not be sealed; trying again", error)

    async def seal(self) -> int:
        """Seal all committed events, unless another process is sealing; return their number.

        Raises:
            ChangedHeadError: the stored head was changed; nothing is sealed.
            KeyRingError: the ring does not have the key of the head.
        """
        async with self._db.reader.connect() as connection:
            if (await connection.execute(rows.ANY_UNSEALED)).first() is None:
                return 0
        async with locked(self._db.engine, "audit") as connection:
            return 0 if connection is None else await self._seal_all(connection)

    async def _seal_all(self, connection: AsyncConnection) -> int:
        sealed = 0
        while True:
            count, head = await seal_batch(connection, self._keyring)
            sealed += count
            if head is not None:
                await self._report(head)
            if count < BATCH_EVENTS:
                return sealed

    async def _report(self, head: Head) -> None:
        """Append the head to the file, and log it once a minute."""
        text = head_line(head)
        if time.monotonic() - self._logged_at >= LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.info("audit head: %s", text)
        if self._head_file is not None:
            try:
                await asyncio.to_thread(append, self._head_file, text)
            except OSError as error:
                log.error("the audit head cannot be appended to %s: %s", self._head_file, error.strerror)  # noqa: TRY400 - the sentence says it all


async def seal_batch(connection: AsyncConnection, keyring: KeyRing) -> tuple[int, Head | None]:
    """Seal up to a batch of events in one transaction; return their number and the new head, or None without any.

    Raises:
        ChangedHeadError: the stored head was changed.
        KeyRingError: the ring does not have the key of the head.
    """
    async with connection.begin():
        found = await lock_head(connection, keyring)
        head = Head(0, START) if found is None else found[0]
        events = (await connection.execute(rows.UNSEALED.limit(BATCH_EVENTS))).all()
        if not events:
            return 0, None
        seals = []
        for event in events:
            position = head.position + 1
            content, salts = rows.content_of(event), new_salts()
            seal = seal_of(keyring, content, position, head.chain, key_id=keyring.first, salts=salts)
            seals.append({"event_id": event.id, "new_position": position, "new_seal": seal.to_bytes()})
            head = Head(position, seal.chain)
        await rows.write_seals(connection, seals)
        proof = prove_head(keyring, head, key_id=keyring.first)
        await rows.write_head(connection, head, proof, is_new=found is None)
    return len(events), head


async def lock_head(connection: AsyncConnection, keyring: KeyRing) -> tuple[Head, bytes] | None:
    """Return the head with its proof, locked until the transaction ends; None before the first event is sealed.

    Raises:
        ChangedHeadError: the stored head was changed.
        KeyRingError: the ring does not have the key of the head.
    """
    found = await rows.read_head(connection, lock=True)
    if found is not None and not is_proved(keyring, *found):
        raise ChangedHeadError(
            "the head of the audit log was changed: run `latchkey audit verify`. Nothing is sealed meanwhile"
        )
    return found


async def renew_proof(connection: AsyncConnection, keyring: KeyRing) -> bool:
    """Prove the head with the first key of the ring, in one transaction; return whether another key proved it.

    The seals of the events stay: each depends on the one before it, up to the heads that were stored outside.

    Raises:
        ChangedHeadError: the stored head was changed.
        KeyRingError: the ring does not have the key of the head.
    """
    async with connection.begin():
        found = await lock_head(connection, keyring)
        if found is None or ring_key_of(found[1]) == keyring.first:
            return False
        head, _ = found
        await rows.write_head(connection, head, prove_head(keyring, head, key_id=keyring.first), is_new=False)
    return True


def head_line(head: Head) -> str:
    """Return a head as one line of JSON."""
    return msgspec.json.encode(StoredHead(head.position, head.chain.hex())).decode()


def append(file: Path, text: str) -> None:
    """Append a line to a file."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{text}\n")


HEAD_LINE = re.compile(r"\{[^{}]*\}")


def read_heads(text: str) -> list[Head]:
    """Return the heads in lines that `head_line` made, also with a prefix, as in a log.

    Raises:
        ValueError: a line contains no head; the message names the line.
    """
    heads = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = HEAD_LINE.search(line)
            stored = msgspec.json.decode(found[0] if found else "", type=StoredHead)
            heads.append(Head(stored.position, bytes.fromhex(stored.chain)))
        except ValueError:
            raise ValueError(f"line {number} contains no head of the audit log") from None
    return heads


class StoredHead(msgspec.Struct, frozen=True):
    """A head as JSON."""

    position: int
    chain: str
