"""The database in the commands: opened, checked for its revision, closed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import click

from latchkey.models import User
from latchkey.service.authentication import canary
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.database import SQLAlchemy, schema
from latchkey.service.database.session import RequestSession
from latchkey.service.key_cache.channel import Channel, open_channel
from latchkey.service.origin import as_origin, command_origin
from latchkey.service.redis.client import UnreachableError
from latchkey.service.settings import Settings
from latchkey.service.users import lock_user, lock_user_by_email

T = TypeVar("T")

THREAD_DEADLINE_S = 0.5  # for the thread of a failed connection


def work(task: Coroutine[Any, Any, T]) -> T:
    """Run a task on a new event loop.

    An SQLite connection that could not be opened ends a moment after its error, in a thread that reports to the loop.
    If the loop were closed before, a traceback would follow the one sentence that the user gets.
    """
    before = threading.enumerate()
    with asyncio.Runner() as runner:
        try:
            return runner.run(task)
        except Exception:
            for thread in set(threading.enumerate()).difference(before):
                thread.join(THREAD_DEADLINE_S)
            raise


@asynccontextmanager
async def opened(settings: Settings, keyring: KeyRing | None = None) -> AsyncIterator[RequestSession]:
    """Open the database for one unit of work; the block must commit.

    Args:
        settings: name the database.
        keyring: what the work seals with; None if it seals nothing.

    Raises:
        NotMigratedError: the database is not at this release's revision.
        WrongKeyRingError: the database was used with another key ring.
    """
    channel = open_channel(settings)
    db = SQLAlchemy()
    db.init_app(None, settings)
    if channel is not None:
        db.watch(partial(publish_change, channel))
    try:
        await schema.require_migrated(db.engine)
        if keyring is not None:
            await canary.require_right_keyring(db.engine, keyring)
        async with db.scoped_session() as session:
            with as_origin(command_origin):
                yield session
    finally:
        await db.close()
        if channel is not None:
            await channel.close()


async def publish_change(channel: Channel, table: str, id: int) -> None:
    """Invalidate the cached keys of a row in all workers, or warn that they may be stale."""
    try:
        await channel.publish(f"{table} {id}")
    except UnreachableError as error:
        click.echo(
            f"Redis cannot be reached ({error}): cached keys of the workers can be stale for up to "
            "LATCHKEY_KEY_CACHE_TTL_S seconds.",
            err=True,
        )


async def require_user(reference: int | str) -> User:
    """Return a user by id or email, locked against changes until this transaction ends, or raise an error."""
    user = await (lock_user(reference) if isinstance(reference, int) else lock_user_by_email(reference))
    if user is None:
        raise click.ClickException(f"there is no user {reference}.")
    return user
