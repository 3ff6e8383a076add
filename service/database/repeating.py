"""A unit of work beside requests, which is repeated when another transaction was in its way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from latchkey.service.database.conflicts import is_conflict, is_locked

T = TypeVar("T")

ATTEMPTS = 5
PAUSE_S = 0.01  # multiplied by the number of the attempt


async def repeat(unit: Callable[[], Awaitable[T]]) -> T:
    """Run a unit of work, which is one transaction; run it again after a conflict, or a wait for a lock that was too long.

    Raises:
        DBAPIError: the error of the last attempt, or another one.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return await unit()
        except DBAPIError as error:
            if not (is_conflict(error) or is_locked(error)):
                raise
        await asyncio.sleep(attempt * PAUSE_S)
    return await unit()
