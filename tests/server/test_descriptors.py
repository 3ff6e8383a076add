"""A process without a file descriptor says so once, and serves again when there is one."""

import logging
import resource
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

from latchkey.service.logs import AcceptFilter
from tests.conftest import KEYRING
from tests.processes import Served

SPARE = 4
NONE_LEFT, AGAIN = "no file descriptor is left", "there are file descriptors again"


def logged(served: Served, words: str) -> int:
    return served.err.read_text().count(words)


def until_logged(served: Served, words: str, clients: list[socket.socket] | None = None) -> None:
    """Wait for a line; meanwhile connect as one more client now and then, because some descriptors are freed again."""
    deadline = time.monotonic() + 5
    while not logged(served, words):
        assert time.monotonic() < deadline, served.err.read_text()
        time.sleep(0.05)
        if clients is not None:
            clients.append(socket.create_connection(("127.0.0.1", served.port), timeout=5))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")
def test_the_end_of_the_descriptors_is_one_log_line(tmp_path: Path, sqlite_template: Path) -> None:
    file = tmp_path / "latchkey.db"
    shutil.copy(sqlite_template, file)
    environ = {"LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{file}", "LATCHKEY_KEYRING": KEYRING}
    with Served(tmp_path, "serve", environ=environ) as served:
        pid = served.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + SPARE, before[1]))
        clients: list[socket.socket] = []
        until_logged(served, NONE_LEFT, clients)
        time.sleep(1.2)
        for client in clients:
            client.close()
        until_logged(served, AGAIN)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

        assert served.answers()
        assert logged(served, NONE_LEFT) == 1
        assert "Traceback" not in served.err.read_text()


def test_the_traceback_of_asyncio_about_the_same_is_dropped() -> None:
    dropped, kept = [
        logging.LogRecord("asyncio", logging.ERROR, "", 0, text, None, None)
        for text in (
            "socket.accept() out of system resource\nsocket: …",
            "Task exception was never retrieved",
        )
    ]

    assert (AcceptFilter().filter(dropped), AcceptFilter().filter(kept)) == (False, True)
