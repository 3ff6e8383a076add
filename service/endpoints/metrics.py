"""The metrics of the service for Prometheus."""

import asyncio
from datetime import timedelta

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import Response

from latchkey.models import ApiKey
from latchkey.models.webhook import Webhook, WebhookDelivery
from latchkey.service import clock
from latchkey.service.metrics.exposition import Stored, render
from latchkey.service.parts import parts_of

SOON = timedelta(days=30)
_OLDEST_PENDING = (
    select(func.min(WebhookDelivery.created_at))
    .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
    .where(Webhook.enabled, WebhookDelivery.status == "pending")
)


class MetricsText(Response):
    """Metrics in the text format of Prometheus."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4


async def read_metrics(request: Request) -> MetricsText:
    """Read the metrics of all workers, in the text format of Prometheus.

    Counters begin at 0 when the service starts.
    """
    parts = parts_of(request.app)
    parts.metrics.note_state(parts.db)
    now = clock.now()
    expiring = await ApiKey.filter(status="active", expires_at__gt=now, expires_at__lte=now + SOON).count()
    oldest = await request.state.session.scalar(_OLDEST_PENDING)
    age_s = 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
    stored = Stored(keys_expiring=expiring, outbox_age_s=age_s)
    text = await asyncio.to_thread(render, parts.metrics.registry, stored)
    return MetricsText(text)
