"""Check the settings of a Galera cluster at the start."""

import logging

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.service.database.driver import UNKNOWN_VARIABLE, number_of

READS_WAIT = 1  # the bit of wsrep_sync_wait for SELECT and the beginning of a transaction

_ASK = text("SELECT @@SESSION.wsrep_on, @@SESSION.wsrep_sync_wait")

log = logging.getLogger("latchkey.database")


async def warn_of_stale_reads(engine: AsyncEngine) -> None:
    """Log a warning when a node of a Galera cluster may return data that another node has changed already.

    Each connection sets `wsrep_sync_wait` for its own session, so this happens only if a proxy does not forward that
    statement.
    """
    if engine.dialect.name == "sqlite":
        return
    try:
        async with engine.connect() as connection:
            is_cluster, waits = (await connection.execute(_ASK)).one()
    except DBAPIError as error:
        if error.orig is not None and number_of(error.orig) == UNKNOWN_VARIABLE:
            return
        raise
    if is_cluster and not waits & READS_WAIT:
        log.warning(
            "the database is a Galera cluster and wsrep_sync_wait is %d in the sessions: a key that was revoked on one "
            "node may be accepted on another one for a moment; set wsrep_sync_wait = 1 on every node.",
            waits,
        )
