"""A private MariaDB: a server of the benchmarks and the tests, in a temporary folder, on a free port.

It needs no service, configuration or password of the machine, and leaves nothing behind.

    with PrivateMariaDB() as server:
        server.create_database("rows")
        engine = create_async_engine(server.url_of("rows"))

`kill` and another `start` simulate a crash of the server: port, rows and password stay.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncmy

from benchmarks.ports import free_port

MISSING = "mariadbd not found: apt-get install mariadb-server (Debian, Ubuntu) or brew install mariadb"
PROGRAM = "LATCHKEY_TEST_MARIADBD"

STARTING_TIMEOUT_S = 60
STOPPING_TIMEOUT_S = 20

# The first two lines of a transaction in InnoDB's own report: its state, and the connection that it belongs to.
_TRANSACTION = re.compile(
    r"^---TRANSACTION [^,]+, (?!not started)[^\n]*\n(?:(?!---)[^\n]*\n)*?(?:MariaDB|MySQL) thread id (\d+)",
    re.MULTILINE,
)


def find_program(name: str) -> Path | None:
    """Return the path of a program, also in folders that are not in an ordinary user's PATH."""
    folders = [
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",
        "/usr/local/sbin",
        "/usr/local/bin",
        "/opt/homebrew/bin",
    ]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


def find_mariadbd() -> Path | None:
    """Return the path of the server; None when it is not installed, or not at `LATCHKEY_TEST_MARIADBD`."""
    named = os.environ.get(PROGRAM)
    if named:
        return Path(named) if Path(named).is_file() else None
    return find_program("mariadbd")


def require_mariadbd() -> Path:
    """Return the path of the server.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = find_mariadbd()
    if found is None:
        raise FileNotFoundError(MISSING)
    return found


class PrivateMariaDB:
    """One server; `start` and `stop`, or a `with` block.

    `port` is None until the first start and stays the same from then on.
    """

    def __init__(self, database: str = "latchkey", *, options: Sequence[str] = ()) -> None:
        self.database = database
        self.options = options
        self.port: int | None = None
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        # A socket's path has at most 107 characters, and the temporary folder of the machine may be deep.
        self._folder = Path(tempfile.mkdtemp(prefix="latchkey-", dir="/tmp"))

    @property
    def socket(self) -> Path:
        """Return the unix socket, over which root connects without a password."""
        return self._folder / "s.sock"

    @property
    def url(self) -> str:
        """Return the URL of the first database, for its user `app`."""
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        """Return the URL of a database, for the user `app`."""
        return f"mysql+asyncmy://app:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and return when it answers; after `kill`, with the same rows and port."""
        if self.port is not None:
            self._launch(self.port)
            return
        self._install()
        # The port was free a moment ago; if another process took it meanwhile, try the next one.
        for remaining in (2, 1, 0):
            port = free_port()
            try:
                self._launch(port)
                break
            except RuntimeError:
                if not remaining:
                    raise
        self.port = port
        self.execute(f"CREATE USER 'app'@'127.0.0.1' IDENTIFIED BY '{self._password}'")
        self.create_database(self.database)

    def create_database(self, name: str) -> None:
        """Create an empty database in which `app` has all rights; an existing one is emptied."""
        self.execute(
            f"DROP DATABASE IF EXISTS `{name}`; CREATE DATABASE `{name}` CHARACTER SET utf8mb4;"
            f"GRANT ALL ON `{name}`.* TO 'app'@'127.0.0.1'"
        )

    def kill_connections(self) -> None:
        """End all connections of `app`; one may end by itself meanwhile."""
        self.execute(self.kills(), may_fail=True)

    def kills(self, what: str = "CONNECTION") -> str:
        """Return the statements that end each connection of `app`, or its statement with `QUERY`."""
        ids = self.execute("SELECT id FROM information_schema.processlist WHERE user = 'app'").split()
        return "".join(f"KILL {what} {one};" for one in ids)

    def execute(self, sql: str, *, may_fail: bool = False) -> str:
        """Run statements as root and return their rows, one per line, with tabs between the columns.

        Args:
            sql: the statements, with semicolons.
            may_fail: whether to go on with the next statement when one fails.

        Raises:
            subprocess.CalledProcessError: a statement failed that may not.
        """
        return subprocess.run(
            [
                _program("mariadb"),
                "--no-defaults",
                "--user=root",
                f"--socket={self.socket}",
                "--batch",
                "--skip-column-names",
                *(["--force"] if may_fail else []),
            ],
            input=sql,
            capture_output=True,
            text=True,
            check=not may_fail,
        ).stdout

    async def open_transactions(self, database: str | None = None) -> int:
        """Count the open transactions of all connections to a database.

        It parses InnoDB's report instead of `information_schema.innodb_trx`, a copy that is renewed only when it was not read
        for 0.1 s: a client that reads it more often sees the same old copy for ever.
        """
        root = await asyncmy.connect(unix_socket=str(self.socket), user="root", autocommit=True)
        try:
            async with root.cursor() as cursor:
                await cursor.execute("SHOW ENGINE INNODB STATUS")
                (_, _, report) = await cursor.fetchone()
                await cursor.execute(
                    "SELECT id FROM information_schema.processlist WHERE db = %s",
                    (database or self.database,),
                )
                connections = {row[0] for row in await cursor.fetchall()}
        finally:
            await root.ensure_closed()
        return sum(int(thread) in connections for thread in _TRANSACTION.findall(report))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server within the block: its sockets stay open, but it does not answer."""
        assert self._process is not None  # noqa: S101 - it was started
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # the signal takes a moment
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server at once, as a crash would; `start` starts it again."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def is_running(self) -> bool:
        """Return whether the server was started and not ended since."""
        return self._process is not None

    def wait(self) -> None:
        """Wait for a server that was told to end."""
        if self._process:
            self._process.wait(STOPPING_TIMEOUT_S)
            self._process = None

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOPPING_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _temporary(self) -> Path:
        return self._folder / "tmp"

    def _install(self) -> None:
        # A starting server deletes files in its temporary folder; in a shared one it would delete those of another server.
        self._temporary.mkdir(exist_ok=True)
        command = self._installing()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def _installing(self) -> list[str]:
        """Return the command that creates the data directory."""
        return [
            *_installer(),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._temporary}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *self._as_user(),
        ]

    def _as_user(self) -> list[str]:
        """Return the option for the user of the process."""
        return as_root()

    def _serving(self) -> list[str]:
        """Return the command that runs the server, without the common options."""
        return [str(require_mariadbd()), "--no-defaults", "--skip-log-bin", "--skip-name-resolve"]

    def _launch(self, port: int) -> None:
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [
                    *self._serving(),
                    *self._as_user(),
                    f"--datadir={self._data}",
                    f"--tmpdir={self._temporary}",
                    f"--socket={self.socket}",
                    f"--port={port}",
                    "--bind-address=127.0.0.1",
                    # Every commit reaches the operating system, so a killed server keeps it, without a wait for the disk.
                    "--innodb-flush-log-at-trx-commit=2",
                    *self.options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + STARTING_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                self.execute("SELECT 1")
            except subprocess.CalledProcessError:
                time.sleep(0.05)
            else:
                return
        self.kill()
        raise RuntimeError(
            f"{self._serving()[0]} did not start:\n{self._log.read_text(errors='replace')[-4000:]}"
        )


def _program(name: str) -> Path:
    found = find_program(name)
    if not found:
        raise FileNotFoundError(MISSING.replace("mariadbd", name, 1))
    return found


def _installer() -> list[str]:
    """Return the program that creates a data directory; the one beside a configured server, if there is one."""
    if not os.environ.get(PROGRAM):
        return [str(_program("mariadb-install-db"))]
    installed = require_mariadbd().parents[1]
    return [str(installed / "bin" / "mariadb-install-db"), f"--basedir={installed}"]


def as_root() -> list[str]:
    """Return the option that root needs to run the server."""
    return ["--user=root"] if os.geteuid() == 0 else []
