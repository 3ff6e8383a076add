"""The types of request and response bodies of webhooks."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from latchkey.models.webhook import URL_BYTES
from latchkey.service.outbox.events import EventType
from latchkey.service.shapes import (
    Cursor,
    Description,
    Grace,
    Id,
    Input,
    Limit,
    Moment,
    OneTimeSecret,
    Output,
)
from latchkey.service.webhooks.sender import Attempt

Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=URL_BYTES,
        description="An absolute https URL, whose host is not in a private network.",
    ),
]
Events = Annotated[
    list[EventType], Meta(max_length=50, description="The types of events to send; empty means all.")
]
DeliveryStatus = Literal["pending", "delivered", "dead"]


class Webhook(Output, frozen=True, kw_only=True):
    """An address that is told of events.

    `failures` is the number of failed attempts since the last success, which `failing_since` and `retry_at` belong to.
    """

    id: Id
    url: str
    description: str
    events: tuple[str, ...]
    enabled: bool
    secret_version: int
    failures: int
    failing_since: Moment | None
    retry_at: Moment | None
    created_at: Moment
    updated_at: Moment


class WebhookWithSecret(Webhook, frozen=True, kw_only=True):
    """A new webhook with the secret that signs its events, which is shown only here."""

    one_time: ClassVar[frozenset[str]] = frozenset({"secret"})

    secret: OneTimeSecret


class RotatedWebhook(WebhookWithSecret, frozen=True, kw_only=True):
    """A webhook with its new secret, and the end of the old one, which is null if it has ended already."""

    old_secret_expires_at: datetime | None


class WebhookPage(Output, frozen=True, kw_only=True):
    """One page of webhooks."""

    data: list[Webhook]
    next_cursor: str | None


class NewWebhook(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/webhooks`."""

    url: Url
    description: Description = ""
    events: Events = []  # noqa: RUF012 - msgspec copies it
    enabled: bool = True


class WebhookChange(Input, frozen=True, kw_only=True):
    """The body of `PATCH /v1/webhooks/{id}`; absent fields stay unchanged."""

    url: Url | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class WebhookRotation(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/webhooks/{id}/rotate`: events are signed with both secrets for `grace_s` more seconds."""

    grace_s: Grace


class WebhookQuery(Input, frozen=True, kw_only=True):
    """The query of `GET /v1/webhooks`."""

    limit: Limit = 50
    cursor: Cursor | None = None


class Pinged(Output, frozen=True, kw_only=True):
    """The result of a ping: the status of the response, or the reason why there is none."""

    delivered: bool
    response: int | None
    error: str | None
    duration_ms: int


def pinged(attempt: Attempt) -> Pinged:
    """Return the result of a ping."""
    return Pinged(
        delivered=attempt.is_delivered,
        response=attempt.response,
        error=attempt.error,
        duration_ms=attempt.duration_ms,
    )


class Delivery(Output, frozen=True, kw_only=True):
    """An event for a webhook.

    `event_id` is the `webhook-id` of every attempt. A delivery with the status `dead` was given up.
    """

    id: Id
    event_id: str
    type: str
    status: DeliveryStatus
    attempts: int
    response: int | None
    error: str | None
    created_at: Moment
    tried_at: Moment | None


class DeliveryPage(Output, frozen=True, kw_only=True):
    """One page of deliveries."""

    data: list[Delivery]
    next_cursor: str | None


class DeliveryQuery(WebhookQuery, frozen=True, kw_only=True):
    """The query of `GET /v1/webhooks/{id}/deliveries`."""

    status: DeliveryStatus | None = None


class Redelivery(Input, frozen=True, kw_only=True):
    """The body of `POST /v1/webhooks/{id}/redeliver`: all dead deliveries, or the one of an event, whatever its status."""

    event_id: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


class Redelivered(Output, frozen=True, kw_only=True):
    """The number of deliveries that will be sent again."""

    deliveries: int
