"""The rules for webhooks, for endpoints and commands that create or change them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import delete, update

from latchkey.models import Webhook, WebhookDelivery
from latchkey.service import clock
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.problems import Problem, invalid_field
from latchkey.service.rule_error import RuleError
from latchkey.service.webhooks.addresses import AddressRules
from latchkey.service.webhooks.signature import WebhookSecret, headers_of, new_secret

MOST_WEBHOOKS = 100
"""Each has a task of its own while its events are delivered."""

UNLOADED = {"synchronize_session": False}  # no delivery is in the session


class Secrets(msgspec.Struct, frozen=True):
    """Creates and opens the secrets of webhooks, which are sealed with the key ring."""

    keyring: KeyRing

    def seal(self, secret: WebhookSecret, webhook_id: int, version: int) -> bytes:
        """Encrypt the secret of one version of one webhook, so that it cannot be opened in another row."""
        return self.keyring.seal(secret.encode(), context(webhook_id, version))

    def signers(self, row: Any, now: datetime) -> list[WebhookSecret]:
        """Return the secrets that sign the events of a webhook now, the current one first.

        Args:
            row: the webhook, or a row with its columns.
            now: the time; the replaced secret may have ended.

        Raises:
            KeyRingError: a secret cannot be opened.
        """
        version = row.secret_version
        found = [self._open(row.sealed, row.id, version)]
        ends_at = row.old_secret_expires_at
        if row.old_sealed is not None and ends_at is not None and ends_at > now:
            found.append(self._open(row.old_sealed, row.id, version - 1))
        return found

    def headers(self, row: Any, event_id: str, payload: bytes) -> list[tuple[str, str]]:
        """Return the headers that identify and sign an attempt that is made now.

        Args:
            row: the webhook, or a row with its columns.
            event_id: of the event.
            payload: the body.

        Raises:
            KeyRingError: a secret cannot be opened.
        """
        return headers_of(event_id, payload, self.signers(row, clock.now()), int(clock.unix_s()))

    def _open(self, sealed: bytes, webhook_id: int, version: int) -> WebhookSecret:
        return WebhookSecret(self.keyring.open(bytes(sealed), context(webhook_id, version)).decode())


def context(webhook_id: int, version: int) -> bytes:
    """Return the associated data of a secret; no access key has a space, so that a key's secret never opens as one."""
    return f"webhook {webhook_id}|{version}".encode()


class WebhookRules(msgspec.Struct, frozen=True):
    """The rules of one application."""

    secrets: Secrets
    addresses: AddressRules

    async def create(
        self, *, url: str, description: str, events: Sequence[str], enabled: bool
    ) -> tuple[Webhook, WebhookSecret]:
        """Create a webhook and flush it; return it with its secret, which is stored nowhere in plain text.

        Raises:
            Problem: 409 `too_many_webhooks`, 422 `invalid_body`.
        """
        self._check(url=url, events=events)
        if await Webhook.filter().count() >= MOST_WEBHOOKS:
            raise Problem("too_many_webhooks")
        secret = new_secret()
        # The id is a part of what the secret is sealed for, and is known after the INSERT.
        webhook = await Webhook.create(
            url=url, description=description, events=tuple(events), enabled=enabled, sealed=b""
        )
        await webhook.update(sealed=self.secrets.seal(secret, webhook.id, 1))
        return webhook, secret

    async def change(self, webhook: Webhook, changes: dict[str, Any]) -> None:
        """Change a locked webhook; one that is enabled again is tried at once.

        Raises:
            Problem: 422 `invalid_body`.
        """
        self._check(**changes)
        if "events" in changes:
            changes["events"] = tuple(changes["events"])
        if changes.get("enabled") or "url" in changes:
            changes |= {"failures": 0, "failing_since": None, "retry_at": None}
        await webhook.update(**changes)

    async def rotate(self, webhook: Webhook, grace_s: int) -> WebhookSecret:
        """Replace the secret of a locked webhook; the old one signs as well during the grace period."""
        secret, version = new_secret(), webhook.secret_version + 1
        now = clock.now()
        await webhook.update(
            secret_version=version,
            sealed=self.secrets.seal(secret, webhook.id, version),
            old_sealed=webhook.sealed if grace_s else None,
            old_secret_expires_at=now + timedelta(seconds=grace_s) if grace_s else None,
        )
        return secret

    def _check(self, *, url: str | None = None, events: Sequence[str] = (), **_: Any) -> None:
        if url is not None:
            with invalid_field("/url"):
                self.addresses.check_url(url)
        for place, one in enumerate(events):
            if one in events[:place]:
                with invalid_field("/events"):
                    raise RuleError("the type is given twice", place)


async def lock_webhook(id: int) -> Webhook:
    """Return a webhook, locked against changes until this transaction ends.

    Raises:
        Problem: 404 `not_found`.
    """
    webhook = await Webhook.filter_by(id=id).for_update().first()
    if webhook is None:
        raise Problem("not_found")
    return webhook


async def redeliver(webhook: Webhook, event_id: str | None) -> int:
    """Make deliveries of a locked webhook pending again: the dead ones, or that of an event; return their number.

    The webhook is tried at once.
    """
    chosen = WebhookDelivery.status == "dead" if event_id is None else WebhookDelivery.event_id == event_id
    again = update(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id, chosen)
    async with Webhook.resolve() as session:
        found = await session.execute(
            again.where(WebhookDelivery.status != "pending").values(status="pending", attempts=0),
            execution_options=UNLOADED,
        )
    await webhook.update(failures=0, failing_since=None, retry_at=None)
    return int(found.rowcount)  # type: ignore[attr-defined]  # the result of an UPDATE


async def remove(webhook: Webhook) -> None:
    """Remove a locked webhook and its deliveries."""
    async with Webhook.resolve() as session:
        await session.execute(
            delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id),
            execution_options=UNLOADED,
        )
    await webhook.remove()
