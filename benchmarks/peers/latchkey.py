"""Latchkey itself, as it is served, with two things that are the benchmark's.

No other server here writes a line for each request, so Latchkey does not either, unless `ACCESS_LOG` is 1.
With `TELL_REMAINDER` it says, when it is asked to stop, what sessions and connections are left.
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
REST_S = 2.0  # how long the server may take to come to rest: it notes the use of keys every few seconds


def create_app() -> Starlette:
    """Build the application from the environment."""
    made = cast("Starlette", create_served_app())
    if os.environ.get("ACCESS_LOG") != "1":
        logging.getLogger("latchkey.access").setLevel(logging.WARNING)
    if os.environ.get("TELL_REMAINDER") == "1":
        tell_remainder(made)
    return made


def tell_remainder(made: Starlette) -> None:
    """Write what is left between the last request and the closing of the database."""
    closing = made.router.lifespan_context

    @contextlib.asynccontextmanager
    async def watched(app: Starlette) -> AsyncIterator[None]:
        async with closing(app):
            yield
            db: SQLAlchemy = app.state.db
            print(REMAINDER + json.dumps(await at_rest(db)), flush=True)  # noqa: T201 - it is read there

    made.router.lifespan_context = watched


async def at_rest(db: SQLAlchemy) -> dict[str, int]:
    """Count what is left, as soon as that is nothing, or as late as it may be."""
    until = asyncio.get_running_loop().time() + REST_S
    while True:
        left = {"sessions": len(db.scoped_session.registry.registry), "checked_out": db.checked_out()}
        if not any(left.values()) or asyncio.get_running_loop().time() > until:
            return left
        await asyncio.sleep(0.01)
