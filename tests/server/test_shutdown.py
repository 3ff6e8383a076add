"""A process ends within its grace period, whatever its database does, and at once at the second signal."""

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latchkey.service.commands.server import GRACE_S
from tests.mariadb import PrivateMariaDB
from tests.server.raw_requests import (
    Reply,
    ServerWithKeys,
    database_of,
    head,
    read_all,
    serve_with_keys,
    split_responses,
)

SLACK_S = 2.0


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerWithKeys]:
    url = database_of("mariadb", request, tmp_path)
    with serve_with_keys(tmp_path, url, environ={"LATCHKEY_DATABASE_TIMEOUT_S": "600"}) as found:
        yield found


def ask(served: ServerWithKeys, method: str = "GET") -> list[Reply]:
    """Send a call to a server that may be ended meanwhile."""
    body = b'{"email":"bob@example.com","name":"Bob"}' if method == "POST" else b""
    headers = [f"authorization: Bearer {served.bearer}", "content-type: application/json"]
    with socket.create_connection(("127.0.0.1", served.port), 60) as client:
        client.sendall(head(method, "/v1/users", *headers, f"content-length: {len(body)}") + body)
        return split_responses(read_all(client))


@pytest.mark.mariadb
def test_a_silent_database_does_not_keep_it(served: ServerWithKeys, mariadb: PrivateMariaDB) -> None:
    """The calls that wait for it get a problem."""
    assert ask(served)[0].status == 200
    with mariadb.frozen(), ThreadPoolExecutor() as clients:
        calls = [clients.submit(ask, served, method) for method in ("GET", "POST")]
        time.sleep(1)
        begun = time.monotonic()
        served.served.process.send_signal(signal.SIGTERM)
        code = served.served.process.wait(2 * GRACE_S)
        took_s = time.monotonic() - begun
        replies = [one.result()[0] for one in calls]

    assert took_s < GRACE_S + SLACK_S
    assert code == 0
    read, written = [(one.status, one.code) for one in replies]
    assert read == (503, "unavailable")
    assert written in {(503, "unavailable"), (500, "commit_unknown")}, "it depends on what it waits for"
    assert "Traceback" not in served.served.err.read_text()


@pytest.mark.mariadb
def test_the_second_signal_ends_it_at_once(served: ServerWithKeys, mariadb: PrivateMariaDB) -> None:
    assert ask(served)[0].status == 200
    with mariadb.frozen(), socket.create_connection(("127.0.0.1", served.port), 60) as client:
        client.sendall(head("GET", "/v1/users", f"authorization: Bearer {served.bearer}"))
        time.sleep(1)
        served.served.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert served.served.process.poll() is None, "the first signal waits for requests"
        served.served.process.send_signal(signal.SIGTERM)
        code = served.served.process.wait(2)

    assert code == 128 + signal.SIGTERM
    assert "ended by a second signal" in served.served.err.read_text()
