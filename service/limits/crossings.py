"""Quotas of which a call has spent 80 or all of 100 percent, for the event `quota.reached`."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import ApiKey, User
from latchkey.service.database.conflicts import log_failure
from latchkey.service.limits.ledger import Ledger
from latchkey.service.limits.period import from_microseconds
from latchkey.service.outbox.events import new_event
from latchkey.service.outbox.listeners import Listeners
from latchkey.service.outbox.writing import write_events

log = logging.getLogger("latchkey.limits")

TYPE = "quota.reached"
PERCENTS = (80, 100)


class Crossing(msgspec.Struct, frozen=True):
    """A quota of which a part is spent since this charge."""

    subject: str
    percent: int
    limit: int
    used: int
    per: Literal["day", "month"]
    resets_at: int


def used_of(ledgers: Sequence[Ledger]) -> list[int]:
    """Return the units that are spent of the quota of each ledger; 0 without one."""
    return [0 if one.period is None else one.period.used for one in ledgers]


def crossings_of(before: Sequence[int], ledgers: Sequence[Ledger]) -> list[Crossing]:
    """Return the parts of quotas that were not spent before a charge, and are now."""
    return [
        Crossing(one.account.subject, percent, period.limit, period.used, quota.per, period.end)
        for used, one in zip(before, ledgers, strict=True)
        if (period := one.period) is not None and (quota := one.account.quota) is not None
        for percent in PERCENTS
        if 100 * used < percent * period.limit <= 100 * period.used
    ]


class QuotaReports:
    """Writes the events of quotas.

    The counters may be on another server, and are written first. A process that dies in between loses the event.

    Args:
        engine: returns the transactional engine.
        listeners: what this process knows of the webhooks.
    """

    def __init__(self, engine: Callable[[], AsyncEngine], listeners: Listeners) -> None:
        self._engine = engine
        self._listeners = listeners

    async def write(self, crossings: Sequence[Crossing]) -> None:
        """Write the events; a failure is logged, and the call that was charged does not notice it."""
        if not crossings or not self._listeners.may_listen(TYPE):
            return
        try:
            async with self._engine().begin() as connection:
                events = [new_event(TYPE, await data_of(connection, one)) for one in crossings]
                await connection.run_sync(write_events, events)
        except Exception as error:  # noqa: BLE001 - it is logged
            log_failure(log, f"{len(crossings)} events {TYPE} could not be written, and are lost", error)


async def data_of(connection: AsyncConnection, crossing: Crossing) -> dict[str, Any]:
    """Return what an event contains of a quota: of a key, or of all keys of a user together."""
    kind, _, number = crossing.subject.partition(":")
    data: dict[str, Any] = {
        "percent": crossing.percent,
        "limit": crossing.limit,
        "used": crossing.used,
        "per": crossing.per,
        "resets_at": from_microseconds(crossing.resets_at),
    }
    if kind == "user":
        found = select(User.external_id).where(User.id == int(number))
        external_id = (await connection.execute(found)).scalar()
        return {"access_key": None, "user_id": int(number), "external_id": external_id, **data}
    columns = select(ApiKey.access_key, ApiKey.user_id, ApiKey.external_id).where(ApiKey.id == int(number))
    row = (await connection.execute(columns)).mappings().first()
    return {**(row or {}), **data}
