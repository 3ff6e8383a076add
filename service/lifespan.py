"""The start and the end of an application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from functools import partial

from starlette.applications import Starlette

from latchkey.middleware import background
from latchkey.service import housekeeping
from latchkey.service.authentication import canary
from latchkey.service.connections.adoption import bound_connections, serving_config
from latchkey.service.connections.descriptors import watch_descriptors
from latchkey.service.database import cluster, schema
from latchkey.service.database.positions import require_positions
from latchkey.service.outbox.listeners import listeners
from latchkey.service.parentage import end_with_parent
from latchkey.service.parts import parts_of
from latchkey.service.shutdown import CLOSING_S, SHUTDOWN_S, Step, end_on_second_signal, run_steps

BACKGROUND_GRACE_S = 10.0  # how long background work may continue after the last request
STOP_AGAIN_S = 1.0  # how long a cancelled task may take to clean up before it is cancelled again


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Check the database and its key ring, run the tasks beside requests, and close everything in order (R12)."""
    parts = parts_of(app)
    db = parts.db
    if not db.is_open:
        raise RuntimeError("this application was closed: create a new one with create_app().")
    try:
        bound_connections(parts.bounds)
        if serving_config() is not None:
            end_on_second_signal()
            end_with_parent(SHUTDOWN_S)
        parts.server_trust.note_start()
        await schema.require_migrated(db.engine, parts.schemas)
        await canary.require_right_keyring(db.engine, parts.keyring)
        if db.replica_state is not None and db.replica_state.sees_writes:
            await require_positions(db.reader)
        if parts.redis_store is not None:
            await parts.redis_store.require_usable()
        await cluster.warn_of_stale_reads(db.reader)
        tasks = [
            asyncio.create_task(parts.revocations.follow(), name="revocations"),
            asyncio.create_task(listeners.follow(db.reader), name="listeners"),
            asyncio.create_task(parts.deliverer.deliver_for_ever(), name="webhooks"),
            asyncio.create_task(parts.last_used.write_for_ever(), name="last used"),
            asyncio.create_task(parts.sealer.seal_for_ever(), name="audit"),
            asyncio.create_task(parts.usage.flush_for_ever(), name="usage"),
            asyncio.create_task(parts.metrics.note_state_for_ever(db), name="metrics"),
            asyncio.create_task(
                housekeeping.purge_for_ever(db, parts.ended_keys_kept_days, parts.usage_ages),
                name="housekeeping",
            ),
        ]
        if serving_config() is not None:
            tasks.append(asyncio.create_task(watch_descriptors(), name="descriptors"))
        if db.replica_state is not None:
            tasks.append(asyncio.create_task(db.replica_state.watch(), name="replica"))
        try:
            yield
        finally:
            await run_steps(
                [
                    ("background work", partial(background.finish, BACKGROUND_GRACE_S)),
                    ("the work beside requests", partial(stop, tasks)),
                    ("the revocation channel", parts.revocations.close),
                    ("writing the last uses of keys", parts.last_used.write),
                    ("reserving nonces", parts.replays.close),
                    ("charging limits", parts.limits.close),
                    ("writing usage", parts.usage.flush),
                    ("reading the rules of the gate", parts.gate.rules.close),
                ],
                within_s=SHUTDOWN_S - CLOSING_S,
            )
    finally:
        steps: list[Step] = [("closing the database", db.close)]
        if parts.redis_store is not None:
            steps.append(("closing the store in Redis", parts.redis_store.close))
        if parts.tracing is not None:
            steps.append(("exporting spans", parts.tracing.flush))
        await run_steps(steps, within_s=CLOSING_S)


async def stop(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    One cancellation may not be enough: before Python 3.12 a driver that waits with `asyncio.wait_for` can lose it.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=STOP_AGAIN_S)
