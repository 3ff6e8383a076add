"""A log line when the process has no file descriptor left."""

import asyncio
import errno
import logging
import os

log = logging.getLogger("latchkey.connections")

LOOK_EVERY_S = 1.0
NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})


async def watch_descriptors() -> None:
    """Log when no file descriptor is left, and when there is one again, until cancelled.

    uvloop then closes new connections without a word; asyncio lets them wait.
    """
    was_left = True
    while True:
        is_left = has_descriptor()
        if was_left and not is_left:
            log.error(
                "no file descriptor is left, so new connections are closed or wait: raise the limit of open files of this "
                "process, or lower LATCHKEY_CONNECTIONS and LATCHKEY_POOL_SIZE"
            )
        elif is_left and not was_left:
            log.info("there are file descriptors again")
        was_left = is_left
        await asyncio.sleep(LOOK_EVERY_S)


def has_descriptor() -> bool:
    """Return whether the process may open another file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in NONE_LEFT
    return True
