"""The erasure of the personal data of an owner, in steps that can be repeated.

The rows of the owner and of its keys are changed last: until then they tell what is to be erased elsewhere, so a process
that was killed is continued by the next one.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any, cast

import msgspec
from sqlalchemy import Row, Table, Update, bindparam, exists, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import ApiKey, AuditEvent, IdempotencyKey, UsageSeries, User, WebhookDelivery
from latchkey.models.journal import Change
from latchkey.service.audit.rows import content_of
from latchkey.service.audit.seal import (
    Seal,
    has_erased_address,
    without_address,
    without_values,
)
from latchkey.service.audit.sealer import Sealer
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.recording import record_changes
from latchkey.service.database.repeating import repeat
from latchkey.service.owners.slices import slices
from latchkey.service.owners.traces import (
    about,
    access_keys_of,
    by_owner,
    events,
    mentions,
    names_of,
    personal_values,
)

ERASED = "erased"
BATCH_ROWS = 200  # of a transaction
SEAL_WITHIN_S = 10.0
PAUSE_S = 0.1

_USERS = cast("Table", User.__table__)
_KEYS = cast("Table", ApiKey.__table__)
_ANSWERS = cast("Table", IdempotencyKey.__table__)
_DELIVERIES = cast("Table", WebhookDelivery.__table__)
_SERIES = cast("Table", UsageSeries.__table__)
_EVENTS = cast("Table", AuditEvent.__table__)

_OF_SEAL = (
    update(_EVENTS)
    .where(_EVENTS.c.id == bindparam("event_id"), _EVENTS.c.seal == bindparam("old_seal"))
    .values(seal=bindparam("new_seal"))
)
_WITHOUT_VALUES = _OF_SEAL.values(values_before=None, values_after=bindparam("after"))
_WITHOUT_ADDRESS = _OF_SEAL.values(address=bindparam("erased_address"))


class NotSealedError(Exception):
    """An audit event about the owner has no seal, so its values cannot be erased."""


class Erased(msgspec.Struct, kw_only=True):
    """The result: the number of rows in which something was erased, by what they are."""

    answers: int = 0
    deliveries: int = 0
    usage_series: int = 0
    audit_values: int = 0
    audit_addresses: int = 0
    keys: int = 0
    users: int = 0


def email_of(user_id: int) -> str:
    """Return the email of an erased user, at a domain that never exists (RFC 2606)."""
    return f"{ERASED}-{user_id}@erased.invalid"


class Erasure:
    """The erasure of one owner, who is deleted already, with all keys revoked.

    Args:
        db: the database.
        keyring: with the keys that have sealed the audit events about the owner.
        sealer: seals events that are not sealed yet, because the values of a sealed event can be erased.
        user_id: the owner.
    """

    def __init__(self, db: SQLAlchemy, keyring: KeyRing, sealer: Sealer, user_id: int) -> None:
        self.done = Erased()
        self._reader: AsyncEngine = db.reader
        self._engine: AsyncEngine = db.engine
        self._keyring = keyring
        self._sealer = sealer
        self._user_id = user_id

    async def run(self) -> Erased:
        """Erase everything, and return what was erased.

        Raises:
            KeyRingError: the ring lacks the key of a seal.
            ChangedHeadError: the audit log cannot be sealed, because its head was changed.
            NotSealedError: it was not sealed in time.
        """
        async with self._reader.connect() as reading:
            access_keys = await access_keys_of(reading, self._user_id)
            await self._seal(reading, access_keys)
            await self._erase_answers(reading, await self._texts(reading))
            await self._erase_deliveries(reading)
            await self._erase_tags(reading)
            await self._erase_events(reading, access_keys)
        await repeat(self._erase_rows)
        return self.done

    async def _seal(self, reading: AsyncConnection, access_keys: Sequence[str]) -> None:
        """Wait until the events about the owner, and those of its calls, are sealed."""
        deadline = asyncio.get_running_loop().time() + SEAL_WITHIN_S
        conditions = [*about(self._user_id, access_keys), by_owner(self._user_id)]
        for condition in conditions:
            unsealed = select(exists().where(condition, AuditEvent.position.is_(None)))
            while (await reading.execute(unsealed)).scalar():
                if not await self._sealer.seal():
                    await asyncio.sleep(PAUSE_S)
                if asyncio.get_running_loop().time() > deadline:
                    raise NotSealedError(
                        "audit events of this user are not sealed yet; run the command again in a moment"
                    )

    async def _texts(self, reading: AsyncConnection) -> list[bytes]:
        """Return the JSON that shows that a stored response is about the owner, by present and by former values."""
        user = (await reading.execute(select(_USERS).where(_USERS.c.id == self._user_id))).one()
        values = {user.email, user.external_id}
        async for batch in events(reading, about(self._user_id, ())[0]):
            for event in batch:
                found = personal_values(event)
                values.update(found.get("email", ()), found.get("external_id", ()))
        values -= {None, email_of(self._user_id)}
        return [*names_of(self._user_id), *(msgspec.json.encode(one) for one in sorted(values))]

    async def _erase_answers(self, reading: AsyncConnection, texts: Sequence[bytes]) -> None:
        """Erase the stored responses about the owner; the claims stay, so no call has a second effect."""
        no_answer = {"status": None, "headers": None, "body": None}
        statement = update(_ANSWERS).where(_ANSWERS.c.id == bindparam("claim")).values(no_answer)
        async for some in slices(reading, _ANSWERS.c.id):
            found = select(_ANSWERS.c.id).where(some, mentions(_ANSWERS.c.body, texts))
            rows = [{"claim": one} for one in (await reading.execute(found)).scalars()]
            self.done.answers += await self._write(statement, rows)

    async def _erase_deliveries(self, reading: AsyncConnection) -> None:
        """Erase the external ids in the events for webhooks, sent or not."""
        texts = [*names_of(self._user_id), f'"data":{{"id":{self._user_id},'.encode()]
        payload = _DELIVERIES.c.payload
        has_external_id = func.instr(payload, literal(b'"external_id":"')) > 0
        statement = update(_DELIVERIES).where(_DELIVERIES.c.id == bindparam("delivery"))
        async for some in slices(reading, _DELIVERIES.c.id):
            found = select(_DELIVERIES.c.id, payload).where(some, has_external_id, mentions(payload, texts))
            rows = [
                {"delivery": delivery_id, "body": without_external_id(bytes(body))}
                for delivery_id, body in await reading.execute(found)
            ]
            self.done.deliveries += await self._write(statement.values(payload=bindparam("body")), rows)

    async def _erase_tags(self, reading: AsyncConnection) -> None:
        """Erase the tags by which the calls of keys were counted; the counts stay."""
        of_owner = select(_KEYS.c.id).where(_KEYS.c.user_id == self._user_id)
        tagged = select(_SERIES.c.id).where(_SERIES.c.key_id.in_(of_owner), _SERIES.c.tags != "")
        statement = update(_SERIES).where(_SERIES.c.id == bindparam("series"))
        statement = statement.values(digest=bindparam("new_digest"), tags="")
        # The digest identifies the other columns, and two series may be alike now.
        rows = [
            {"series": one, "new_digest": sha256(f"{ERASED} {one}".encode()).digest()}
            for one in (await reading.execute(tagged)).scalars()
        ]
        self.done.usage_series += await self._write(statement, rows)

    async def _erase_events(self, reading: AsyncConnection, access_keys: Sequence[str]) -> None:
        """Erase personal values and addresses in the audit log; the seals stay valid."""
        for condition in about(self._user_id, access_keys):
            async for batch in events(reading, condition):
                rows = [self._without_values(one) for one in batch if personal_values(one)]
                self.done.audit_values += await self._write(_WITHOUT_VALUES, rows)
        condition = by_owner(self._user_id) & AuditEvent.address.is_not(None)
        async for batch in events(reading, condition):
            rows = [self._without_address(one) for one in batch if not has_erased_address(content_of(one))]
            self.done.audit_addresses += await self._write(_WITHOUT_ADDRESS, rows)

    def _without_values(self, event: Row[*tuple[Any, ...]]) -> dict[str, Any]:
        content, seal = without_values(self._keyring, content_of(event), stored_seal(event))
        return {**_ids_of(event, seal), "after": msgspec.json.decode(content.after or "")}

    def _without_address(self, event: Row[*tuple[Any, ...]]) -> dict[str, Any]:
        content, seal = without_address(self._keyring, content_of(event), stored_seal(event))
        return {**_ids_of(event, seal), "erased_address": content.address}

    async def _erase_rows(self) -> None:
        """Erase the columns of the owner and of its keys, and record that it was done, unless it was done before."""
        user_id = self._user_id
        is_owner = _USERS.c.id == user_id
        of_owner = update(_KEYS).where(_KEYS.c.user_id == user_id)
        async with self._engine.begin() as connection:
            user = (await connection.execute(select(_USERS.c.email).where(is_owner).with_for_update())).one()
            if user.email == email_of(user_id):
                return
            # The housekeeping counts the days since the end of a key from `updated_at`.
            same = {"updated_at": _KEYS.c.updated_at}
            keys = of_owner.values(name=ERASED, external_id=None, meta={}, allowed_networks=(), **same)
            self.done.keys = (await connection.execute(keys)).rowcount
            email = email_of(user_id)
            values: dict[str, Any] = {
                "email": email,
                "email_key": email,
                "name": ERASED,
                "external_id": None,
                "meta": {},
            }
            self.done.users = (
                await connection.execute(update(_USERS).where(is_owner).values(values))
            ).rowcount
            change = Change(noun=User.audit_noun, verb=ERASED, id=str(user_id), before={}, after={})
            await connection.run_sync(record_changes, [change])

    async def _write(self, statement: Update, rows: Sequence[dict[str, Any]]) -> int:
        """Run a statement for each row, in short transactions; return the number of rows that it has changed."""
        changed = 0
        for first in range(0, len(rows), BATCH_ROWS):
            changed += await repeat(partial(self._write_batch, statement, rows[first : first + BATCH_ROWS]))
        return changed

    async def _write_batch(self, statement: Update, rows: Sequence[dict[str, Any]]) -> int:
        async with self._engine.begin() as connection:
            return int((await connection.execute(statement, rows)).rowcount)


def stored_seal(event: Row[*tuple[Any, ...]]) -> Seal:
    """Return the seal of an event.

    Raises:
        NotSealedError: somebody has removed or changed it.
    """
    seal = None if event.seal is None else Seal.from_bytes(bytes(event.seal))
    if seal is None:
        raise NotSealedError(f"the seal of event {event.id} was changed: run `latchkey audit verify`")
    return seal


def _ids_of(event: Row[*tuple[Any, ...]], seal: Seal) -> dict[str, Any]:
    """Return the parameters that identify an event with its old seal, and the new one."""
    return {"event_id": event.id, "old_seal": event.seal, "new_seal": seal.to_bytes()}


def without_external_id(payload: bytes) -> bytes:
    """Return the body of an event without the external id."""
    body = msgspec.json.decode(payload)
    body["data"]["external_id"] = None
    return msgspec.json.encode(body)
