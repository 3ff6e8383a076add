"""Rows of webhooks."""

from starlette.applications import Starlette

from latchkey.models import Webhook
from latchkey.service.webhooks.signature import new_secret


async def hold_webhook(app: Starlette, id: int) -> None:
    """Create a webhook whose address is refused at every attempt, unless there is one with this id."""
    async with app.state.db.scoped_session() as session:
        if await Webhook.get(id) is None:
            sealed = app.state.latchkey.webhook_rules.secrets.seal(new_secret(), id, 1)
            session.add(Webhook(id=id, url="https://127.0.0.1/", sealed=sealed))
            await session.commit()
