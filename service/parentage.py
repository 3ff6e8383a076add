"""The end of a worker whose parent process is gone."""

import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait

log = logging.getLogger("latchkey.shutdown")


def end_with_parent(grace_s: float) -> None:
    """End this process when the one that started it has ended, also if that was killed.

    A worker that outlived its parent would go on serving, and nobody could stop or replace it. It ends as by SIGTERM, and
    after the grace period at once. In a process that was not started by `multiprocessing` this has no effect.

    Args:
        grace_s: seconds from the signal to the end.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        log.warning("the process that started this worker has ended, so the worker ends too")
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(grace_s)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
