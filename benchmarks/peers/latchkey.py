"""Latchkey as it is served, with two additions for the benchmark.

No other server here writes an access log, so Latchkey does not either, unless `ACCESS_LOG` is 1.
With `TELL_REMAINDER` it reports its remaining sessions and connections when it is stopped.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator
from typing import cast

from starlette.applications import Starlette

from latchkey.service.database import SQLAlchemy
from latchkey.service.serving import create_served_app

REMAINDER = "remainder: "
REST_S = 2.0  # the time for the server to become idle: it records the use of keys every few seconds


def create_app() -> Starlette:
    """Build the application from the environment."""
    made = cast("Starlette", create_served_app())
    if os.environ.get("ACCESS_LOG") != "1":
        logging.getLogger("latchkey.access").setLevel(logging.WARNING)
    if os.environ.get("TELL_REMAINDER") == "1":
        tell_remainder(made)
    return made


def tell_remainder(made: Starlette) -> None:
    """Write the remaining sessions and connections after the last request, before the database is closed."""
    closing = made.router.lifespan_context

    @contextlib.asynccontextmanager
    async def watched(app: Starlette) -> AsyncIterator[None]:
        async with closing(app):
            yield
            db: SQLAlchemy = app.state.db
            print(REMAINDER + json.dumps(await at_rest(db)), flush=True)  # noqa: T201 - it is read there

    made.router.lifespan_context = watched


async def at_rest(db: SQLAlchemy) -> dict[str, int]:
    """Return the remaining sessions and connections, as soon as there are none or the time has passed."""
    until = asyncio.get_running_loop().time() + REST_S
    while True:
        left = {"sessions": len(db.scoped_session.registry.registry), "checked_out": db.checked_out()}
        if not any(left.values()) or asyncio.get_running_loop().time() > until:
            return left
        await asyncio.sleep(0.01)
