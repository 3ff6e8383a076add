"""A process that runs the application without a server, until it is killed: `python -m tests.service.webhooks.delivering`."""

import asyncio

from latchkey.service.app import create_app
from latchkey.service.lifespan import lifespan
from latchkey.service.webhooks import deliverer


async def run() -> None:
    """Run what the application does beside requests."""
    deliverer.LOOK_EVERY_S = deliverer.STAND_BY_S = 0.05
    async with lifespan(create_app()):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run())
