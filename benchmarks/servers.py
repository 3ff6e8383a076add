"""A server under test: one peer in a separate process, started, polled until it answers, and stopped."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from benchmarks import processes
from benchmarks.ports import free_port
from benchmarks.rows import Database

STARTING_TIMEOUT_S = 60
STOPPING_TIMEOUT_S = 30
KEEP_ALIVE_S = 600  # idle clients stay connected until the measurement ends
POOL_SIZE = 40
CONNECTIONS = 4096  # more than any job opens, so that no idle client is closed
CLOCK_WINDOW_S = 3600  # requests are signed before they are sent
OURS = "LATCHKEY_"


class BenchmarkServerError(RuntimeError):
    """A server did not start, or ended; the message ends with its last output."""


class ServerVariant(msgspec.Struct, frozen=True, kw_only=True):
    """A peer and its start parameters."""

    module: str
    """The name of its module in `benchmarks.peers`."""
    environ: dict[str, str] = {}
    discards_log: bool = False
    """True sends its log to /dev/null, so that it cannot be shown."""
    pool_size: int = POOL_SIZE
    workers: int = 1


def environ_of(variant: ServerVariant, database: Database) -> dict[str, str]:
    """Return the environment of a server: its database, and none of the settings of this process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {
        **inherited,
        "DATABASE_URL": database.url,
        "POOL_SIZE": str(variant.pool_size),
        "LATCHKEY_DATABASE_URL": database.url,
        "LATCHKEY_POOL_SIZE": str(variant.pool_size),
        "LATCHKEY_KEYRING": database.keyring,
        "LATCHKEY_CLOCK_WINDOW_S": str(CLOCK_WINDOW_S),
        "LATCHKEY_CONNECTIONS": str(CONNECTIONS),
        **variant.environ,
    }


class Server:
    """One peer behind uvicorn with uvloop and httptools, without uvicorn's access log.

    Args:
        variant: the peer.
        database: its database.
        cores: the cores of the server, including its workers and threads.
    """

    def __init__(self, variant: ServerVariant, database: Database, *, cores: frozenset[int]) -> None:
        self.variant = variant
        self.database = database
        self.cores = cores
        self.port = free_port()
        self._log = Path(os.devnull)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id; with several workers, that of the parent."""
        assert self._process is not None  # noqa: S101 - inside the `with` block
        return self._process.pid

    def __enter__(self) -> Self:
        """Start the server, and wait until it accepts connections."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        if not self.variant.discards_log:
            descriptor, name = tempfile.mkstemp(prefix=f"{self.variant.module}-", suffix=".log")
            os.close(descriptor)
            self._log = Path(name)
        command = [
            *(
                sys.executable,
                "-m",
                "uvicorn",
                "--factory",
                f"benchmarks.peers.{self.variant.module}:create_app",
            ),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", str(self.variant.workers)),
            *("--loop", "uvloop", "--http", "httptools", "--timeout-keep-alive", str(KEEP_ALIVE_S)),
            *("--no-access-log", "--no-proxy-headers", "--no-server-header", "--log-level", "warning"),
        ]
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                command,
                env=environ_of(self.variant, self.database),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.sched_setaffinity(process.pid, self.cores)
        deadline = time.monotonic() + STARTING_TIMEOUT_S
        while not self._is_listening():
            if process.poll() is not None:
                raise BenchmarkServerError(f"{self.variant.module} did not start: {self.last_words()}")
            if time.monotonic() > deadline:
                raise BenchmarkServerError(f"{self.variant.module} does not answer: {self.last_words()}")
            time.sleep(0.05)

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def last_words(self) -> str:
        """Return the last line of its output, which for a traceback is the error."""
        text = self._read_log()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "Error: " in line]
        return (errors or lines or ["it said nothing"])[-1]

    def cpu_s(self) -> float:
        """Return the CPU time of the server, including its workers, in seconds."""
        return processes.cpu_s(self.pid)

    def stop(self) -> str:
        """Stop the server, wait, and return its output."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOPPING_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        text = self._read_log()
        if self._log.is_file():
            self._log.unlink()
        return text

    def _read_log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.is_file() else ""
