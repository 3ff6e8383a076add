"""Requests as raw bytes, to a server in separate processes with keys that were created by commands."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from latchkey.service.settings import Settings
from tests.conftest import KEYRING, MARIADB, empty, migrate
from tests.processes import Served

README_COMMAND = ["uvicorn", "--factory", "team:create_app", "--no-proxy-headers"]
TEAM = (
    "from latchkey.service.app import create_app as latchkey\n\n\ndef create_app():\n    return latchkey()\n"
)


SERVERS = [
    pytest.param(("sqlite", 1), id="sqlite-1-worker"),
    pytest.param(("mariadb", 4), id="mariadb-4-workers", marks=MARIADB.marks),
]
"""Each database with a number of workers, for fixtures of a whole module."""


def database_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """Return the URL of a migrated database: the suite's MariaDB, or an SQLite file in a folder."""
    if kind == "mariadb":
        return str(request.getfixturevalue("mariadb_url"))
    shutil.copy(request.getfixturevalue("sqlite_template"), folder / "latchkey.db")
    return f"sqlite+aiosqlite:///{folder}/latchkey.db"


class Reply(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """Return the code of a problem."""
        return json.loads(self.body).get("code") if self.body else None


class ServerWithKeys(msgspec.Struct, frozen=True):
    """A server, and a bearer key with all scopes, which `networks` may restrict."""

    served: Any
    bearer: str
    bound: str

    @property
    def port(self) -> int:
        return self.served.port


def split_responses(data: bytes) -> list[Reply]:
    """Return the answers of a connection; none has a chunked body."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers.get("content-length", 0))
        found.append(Reply(int(lines[0].split()[1]), headers, rest[:length]))
        data = rest[length:]
    return found


def exchange(port: int, *parts: bytes, pause_s: float = 0.0, timeout_s: float = 20.0) -> list[Reply]:
    """Send parts with pauses between them, and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as client:
        for number, part in enumerate(parts):
            if number:
                time.sleep(pause_s)
            client.sendall(part)
        return split_responses(read_all(client))


def read_all(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(65536):
        data += part
    return data


def head(method: str, path: str, *headers: str) -> bytes:
    """Return the head of a request that is the last one of its connection."""
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "host: x", "connection: close", *headers, "", ""]
    ).encode()


def run_command(environ: dict[str, str], *arguments: str) -> Any:
    made = subprocess.run(
        [sys.executable, "-m", "latchkey", *arguments, "--json"],
        capture_output=True, text=True, timeout=60, check=True, env=environ,
    )  # fmt: skip
    return json.loads(made.stdout)


@contextmanager
def serve_with_keys(
    folder: Path,
    database_url: str,
    *,
    workers: int = 1,
    arguments: list[str] | None = None,
    environ: dict[str, str] | None = None,
    scopes: str = "users:read,users:write",
) -> Iterator[ServerWithKeys]:
    """Migrate, create two keys, and serve with `latchkey serve`, or with a Python module with `arguments`."""
    settings = Settings(database_url=database_url, keyring=KEYRING)
    asyncio.run(migrate(settings))
    of_latchkey = {"LATCHKEY_DATABASE_URL": database_url, "LATCHKEY_KEYRING": KEYRING, **(environ or {})}
    everything = {**os.environ, **of_latchkey}
    run_command(everything, "users", "create", "--email", "ann@example.com", "--name", "Ann")
    key = ("keys", "create", "--user", "ann@example.com", "--name", "k", "--mode", "bearer")
    served = Served(folder, "serve", "--workers", str(workers), environ=of_latchkey)
    if arguments is not None:
        (folder / "team.py").write_text(TEAM)
        served.arguments = [sys.executable, "-m", *arguments, "--port", str(served.port)]
    try:
        bearer = run_command(everything, *key, "--scopes", scopes)["secret"]
        bound = run_command(everything, *key, "--scopes", scopes, "--networks", "198.51.100.0/24")["secret"]
        with served:
            yield ServerWithKeys(served, bearer, bound)
    finally:
        if "mysql" in database_url:
            asyncio.run(empty(settings))
