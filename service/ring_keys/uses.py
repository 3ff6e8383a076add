"""What each key of the key ring is needed for, and which may be removed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from latchkey.models import AuditEvent, AuditHead
from latchkey.service.authentication.keyring import ID_BYTES, ring_key_of
from latchkey.service.ring_keys.places import PLACES, windows


class Uses(msgspec.Struct, kw_only=True):
    """What one key of the ring is needed for.

    `encrypted` are the values that are encrypted with it, by what they are, and `audit_head` is 1 if it proves the head of
    the audit log. Without the key, the service cannot use them. `audit_events` are sealed with it, at positions from `first_position` to
    `last_position`; only their verification needs the key.
    """

    encrypted: dict[str, int] = msgspec.field(default_factory=dict)
    audit_head: int = 0
    audit_events: int = 0
    first_position: int | None = None
    last_position: int | None = None

    @property
    def words(self) -> list[str]:
        """Return what the service needs the key for, as words."""
        found = [f"{count} {noun}" for noun, count in self.encrypted.items() if count]
        return [*found, "the head of the audit log"] if self.audit_head else found


async def read_uses(connection: AsyncConnection) -> dict[int, Uses]:
    """Return what each ring key is used for, by its id; only of keys that are used."""
    found: dict[int, Uses] = {}
    for place in PLACES:
        async for window in windows(connection, place.key[0]):
            for stored, count in await _counted(connection, place.column, window):
                uses = found.setdefault(ring_key_of(stored), Uses())
                uses.encrypted[place.noun] = uses.encrypted.get(place.noun, 0) + count
    position = AuditEvent.position
    async for window in windows(connection, position):  # type: ignore[arg-type]  # a column of a model
        ends = (func.min(position), func.max(position))
        for stored, count, first, last in await _counted(connection, AuditEvent.seal, window, *ends):
            uses = found.setdefault(ring_key_of(stored), Uses())
            uses.audit_events += count
            uses.first_position, uses.last_position = uses.first_position or first, last
    for proof in (await connection.execute(select(AuditHead.proof))).scalars():
        found.setdefault(ring_key_of(bytes(proof)), Uses()).audit_head = 1
    return found


async def _counted(
    connection: AsyncConnection, column: Any, window: ColumnElement[bool], *more: ColumnElement[Any]
) -> Sequence[Any]:
    """Return the first bytes of the values of a window, which are the id of their ring key, each with its count."""
    prefix = func.substr(column, literal_column("1"), literal_column(str(ID_BYTES))).label("prefix")
    counted = select(prefix, func.count(), *more).where(window, column.is_not(None)).group_by("prefix")
    return [(bytes(stored), *rest) for stored, *rest in await connection.execute(counted)]


def sentences(found: Mapping[int, Uses], ids: Iterable[int], first: int) -> list[str]:
    """Return what to do about each ring key but the first one.

    Args:
        found: the uses.
        ids: the keys of the ring.
        first: the first key of the ring.
    """
    held = frozenset(ids)
    return [
        _sentence(key_id, found.get(key_id, Uses()), first, is_held=key_id in held)
        for key_id in sorted((held | found.keys()) - {first})
    ]


def _sentence(key_id: int, uses: Uses, first: int, *, is_held: bool) -> str:
    about = f"Ring key {key_id}"
    if uses.words:
        lacking = "" if is_held else " It is missing in LATCHKEY_KEYRING: add it again."
        return f"{about} is used by {', '.join(uses.words)}.{lacking} `latchkey keyring rewrap` replaces it."
    verifies = (
        f"`latchkey audit verify` and `latchkey users erase` need it for {uses.audit_events} events, "
        f"at positions {uses.first_position} to {uses.last_position}"
    )
    if not is_held:
        return f"{about} is not in LATCHKEY_KEYRING, and the service does not need it. {verifies}."
    may = f"{about} may be removed from LATCHKEY_KEYRING once every process has ring key {first} in front"
    return f"{may}. Store it elsewhere: {verifies}." if uses.audit_events else f"{may}. Nothing uses it."
