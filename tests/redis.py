"""A private Redis: a server of the suite, on a free port.

`kill` and another `start` simulate a crash: the port stays, and the data is lost, unless the server keeps it on disk.
"""

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

from benchmarks.ports import free_port
from tests.mariadb import find_program

MISSING = "redis-server not found: apt-get install redis-server (Debian, Ubuntu) or brew install redis"
REQUIRE = "LATCHKEY_TEST_REQUIRE_REDIS"
STARTING_TIMEOUT_S = 10
MASTER = "latchkey"


def require_or_skip() -> Path:
    """Return the path of the server; without it skip the test, or fail it if Redis is required."""
    if found := find_program("redis-server"):
        return found
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(MISSING, pytrace=False)
    pytest.skip(MISSING)


class PrivateRedis:
    """One server, in a `with` block.

    Args:
        keeps: whether it writes an append-only file.
        options: more arguments of the server.
    """

    def __init__(self, *options: str, keeps: bool = False) -> None:
        self.options = ["--appendonly", "yes" if keeps else "no", *options]
        self._program = require_or_skip()
        self._folder = tempfile.TemporaryDirectory(prefix="latchkey-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._arguments: list[str] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def url_of_sentinel(self) -> str:
        """Return the URL of the service for a server that is a Sentinel."""
        return f"{self.url}?sentinel={MASTER}"

    @classmethod
    def sentinel_of(cls, master: "PrivateRedis") -> Self:
        """Return a Sentinel that replaces a master after half a second."""
        found = cls("--sentinel")
        found.configure(
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {MASTER} 500",
            f"sentinel failover-timeout {MASTER} 2000",
        )
        return found

    def configure(self, *lines: str) -> None:
        """Write a configuration, which a Sentinel needs and rewrites."""
        file = Path(self._folder.name) / "redis.conf"
        file.write_text("\n".join([f"port {self.port}", "bind 127.0.0.1", *lines, ""]))
        self._arguments = [str(file), *self.options[2:]]

    def start(self) -> None:
        """Start the server and return when it answers."""
        arguments = self._arguments or [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            *self.options,
        ]
        self._process = subprocess.Popen(
            [self._program, *arguments], cwd=self._folder.name, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + STARTING_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError("redis-server did not start")
            time.sleep(0.01)

    def command(self, *words: str) -> bytes:
        """Run a command on a new connection, and return the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n%s" % (len(words), parts))
            return connection.recv(65536)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """Return the id of the running process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hold_all_slots(self) -> None:
        """Make a server with `--cluster-enabled yes` a cluster of its own, which refuses scripts over several slots."""
        self.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + STARTING_TIMEOUT_S
        while b"cluster_state:ok" not in self.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()
