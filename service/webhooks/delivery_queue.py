"""The deliveries of webhooks in the database: which one is next, and what became of it. Each statement commits itself."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Row, Table, and_, bindparam, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from latchkey.models import Webhook, WebhookDelivery
from latchkey.models.webhook import ERROR_LENGTH
from latchkey.service import clock
from latchkey.service.webhooks.schedule import Schedule
from latchkey.service.webhooks.sender import Attempt

_WEBHOOKS = cast("Table", Webhook.__table__)
_DELIVERIES = cast("Table", WebhookDelivery.__table__)

_MOMENT = bindparam("moment", type_=_WEBHOOKS.c.retry_at.type)
_IS_DUE = and_(_WEBHOOKS.c.enabled, or_(_WEBHOOKS.c.retry_at.is_(None), _WEBHOOKS.c.retry_at <= _MOMENT))
_IS_PENDING = and_(_DELIVERIES.c.webhook_id == _WEBHOOKS.c.id, _DELIVERIES.c.status == "pending")
DUE = select(_WEBHOOKS.c.id).where(_IS_DUE, exists().where(_IS_PENDING)).order_by(_WEBHOOKS.c.id)
NEXT = (
    select(
        *(_WEBHOOKS.c[name] for name in ("id", "url", "secret_version", "sealed", "old_sealed")),
        *(_WEBHOOKS.c[name] for name in ("old_secret_expires_at", "failures", "failing_since")),
        *(_DELIVERIES.c[name] for name in ("event_id", "payload")),
        _DELIVERIES.c.id.label("delivery_id"),
    )
    .join(_DELIVERIES, _IS_PENDING)
    .where(_WEBHOOKS.c.id == bindparam("webhook_id"), _IS_DUE)
    .order_by(_DELIVERIES.c.id)
    .limit(1)
)
# The deliverer's notes about a webhook are no change of it, so `updated_at` stays.
_NOTE = update(_WEBHOOKS).values(updated_at=_WEBHOOKS.c.updated_at)


class Queue:
    """The outbox of an application, for the one process that delivers.

    Args:
        engine: returns the AUTOCOMMIT engine on the primary.
        schedule: the pauses after failures.
    """

    def __init__(self, engine: Callable[[], AsyncEngine], schedule: Schedule) -> None:
        self._engine = engine
        self._schedule = schedule

    async def due(self) -> list[int]:
        """Return the ids of the webhooks that have something to be sent now."""
        async with self._engine().connect() as connection:
            return list((await connection.execute(DUE, {"moment": clock.now()})).scalars())

    async def next(self, webhook_id: int) -> Row[*tuple[Any, ...]] | None:
        """Return the oldest pending delivery of a webhook, with the webhook; None when there is nothing to be sent now."""
        async with self._engine().connect() as connection:
            values = {"webhook_id": webhook_id, "moment": clock.now()}
            return (await connection.execute(NEXT, values)).first()

    async def note_success(self, row: Row[*tuple[Any, ...]], attempt: Attempt) -> None:
        """Mark a delivery as delivered; its webhook has no failures any more."""
        async with self._engine().connect() as connection:
            await self._note_attempt(connection, row, attempt, status="delivered")
            if row.failures:
                cleared = _NOTE.values(failures=0, failing_since=None, retry_at=None)
                await connection.execute(cleared.where(_WEBHOOKS.c.id == row.id))

    async def note_failure(self, row: Row[*tuple[Any, ...]], attempt: Attempt) -> float:
        """Mark a failed attempt, and give up what has waited too long; return the pause until the next attempt, in seconds."""
        now, failures = clock.now(), row.failures + 1
        pause_s = self._schedule.pause_s(failures)
        failing_since = row.failing_since or now
        async with self._engine().connect() as connection:
            await self._note_attempt(connection, row, attempt)
            noted = _NOTE.values(
                failures=failures, failing_since=failing_since, retry_at=now + timedelta(seconds=pause_s)
            )
            await connection.execute(noted.where(_WEBHOOKS.c.id == row.id))
            too_old = now - timedelta(seconds=self._schedule.give_up_s)
            if failing_since <= too_old:
                given_up = (
                    update(_DELIVERIES)
                    .where(_DELIVERIES.c.webhook_id == row.id, _DELIVERIES.c.status == "pending")
                    .where(or_(_DELIVERIES.c.id == row.delivery_id, _DELIVERIES.c.created_at <= too_old))
                    .values(status="dead")
                )
                await connection.execute(given_up)
        return pause_s

    async def _note_attempt(
        self,
        connection: AsyncConnection,
        row: Row[*tuple[Any, ...]],
        attempt: Attempt,
        *,
        status: str = "pending",
    ) -> None:
        error = None if attempt.error is None else attempt.error[:ERROR_LENGTH]
        await connection.execute(
            update(_DELIVERIES)
            .where(_DELIVERIES.c.id == row.delivery_id, _DELIVERIES.c.status == "pending")
            .values(
                status=status,
                attempts=_DELIVERIES.c.attempts + 1,
                response=attempt.response,
                error=error,
                tried_at=clock.now(),
            )
        )
