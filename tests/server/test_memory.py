"""Thousands of clients with endless requests use little memory of a worker, and none after they have left."""

import os
import resource
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server.raw_requests import SERVERS, ServerWithKeys, database_of, exchange, head, serve_with_keys

LONG = os.environ.get("LATCHKEY_TEST_BOUNDS") == "long"
CLIENTS = 2_000
GROWTH_MIB = 32.0  # at most, while the clients are there and after they left
SLOWDOWN = 3.0  # of a good client's median, at most
LEFT_S = 60.0 if LONG else 1.0  # after which the memory is measured again
Attack = Callable[[ServerWithKeys], list[bytes]]
GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /v1/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module", params=SERVERS)
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerWithKeys, int]]:
    kind, number = request.param
    folder: Path = tmp_path_factory.mktemp("served")
    with serve_with_keys(folder, database_of(kind, request, folder), workers=number) as found:
        yield found, number


@pytest.fixture
def served(started: tuple[ServerWithKeys, int]) -> ServerWithKeys:
    """Start new processes and warm them up, because freed memory is not always returned to the system."""
    found, workers = started
    found.served.stop()
    found.served.__enter__()
    for _ in range(20 * workers):
        exchange(found.port, head("GET", "/openapi.json"))
        exchange(found.port, upload(found, b"{}", declared=2) + head("GET", "/healthz"))
    return found


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> Iterator[None]:
    """Raise the limit of open files: this process holds the clients' sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def upload(served: ServerWithKeys, body: bytes, *, declared: int) -> bytes:
    """Return a request whose body may be incomplete."""
    return POST % served.bearer.encode() + b"content-length: %d\r\n\r\n" % declared + body


def header_lines(_served: ServerWithKeys) -> list[bytes]:
    """Send 60 MB of header lines on one connection."""
    return [GET + b"x: y\r\n" * 10_000_000]


def unfinished_headers(_served: ServerWithKeys) -> list[bytes]:
    """Send incomplete headers of the maximum size."""
    return [GET + b"x-name: %b\r\n" % (b"y" * 150) * 90] * CLIENTS


def half_a_header(_served: ServerWithKeys) -> list[bytes]:
    """Send one incomplete header, in one packet, larger than a header may be."""
    return [GET + b"x: " + b"y" * 60_000] * CLIENTS


def stalled_bodies(served: ServerWithKeys) -> list[bytes]:
    """Send incomplete bodies."""
    return [upload(served, b"{" + b" " * 60_000, declared=1_000_000)] * CLIENTS


def stalled_trailers(served: ServerWithKeys) -> list[bytes]:
    """Send an incomplete trailer after a chunked body."""
    begin = POST % served.bearer.encode() + b"transfer-encoding: chunked\r\n\r\n"
    return [begin + b"2\r\n{}\r\n0\r\nx: " + b"y" * 30_000] * CLIENTS


def unread_answers(_served: ServerWithKeys) -> list[bytes]:
    """Pipeline requests without reading the answers; there are fewer clients, because each request is processed."""
    return [b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 16] * 600


def requests_ahead(served: ServerWithKeys) -> list[bytes]:
    """Pipeline large requests behind one that waits for its body."""
    large = GET + b"x: " + b"y" * 15_000 + b"\r\n\r\n"
    return [upload(served, b"{", declared=100) + large * 16] * CLIENTS


ATTACKS = [header_lines, unfinished_headers, stalled_bodies]
OTHERS = [half_a_header, stalled_trailers, unread_answers, requests_ahead]


@pytest.mark.parametrize("attack", ATTACKS)
def test_memory(served: ServerWithKeys, attack: Attack) -> None:
    withstand(served, attack)


@pytest.mark.parametrize("attack", OTHERS)
@pytest.mark.parametrize("started", SERVERS if LONG else SERVERS[:1], indirect=True)
def test_memory_by_other_ways(served: ServerWithKeys, attack: Attack) -> None:
    withstand(served, attack)


def withstand(served: ServerWithKeys, attack: Attack) -> None:
    """Measure the memory, and the latency of another client, before, during and after an attack."""
    before, quiet_s = memory_mib(served), median_s(served)

    with ExitStack() as clients:
        for data in attack(served):
            clients.enter_context(hold(served.port, data))
        during, busy_s = memory_mib(served), median_s(served)
    time.sleep(LEFT_S)
    after = memory_mib(served)

    growth = [max(now[pid] - before[pid] for pid in before) for now in (during, after)]
    figures = f"{growth[0]:+.1f} MiB, {growth[1]:+.1f} MiB after; median x {busy_s / quiet_s:.2f}"
    print(f"{attack.__name__}: {figures}")  # noqa: T201 - the figures of the long form
    assert max(growth) <= GROWTH_MIB
    if LONG:  # otherwise the load of a shared machine would decide the result
        assert busy_s <= SLOWDOWN * quiet_s


def hold(port: int, data: bytes) -> socket.socket:
    """Send until no more is accepted, and keep the connection open."""
    client = socket.socket()
    client.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
    )  # memory that the system keeps is not the server's
    client.settimeout(5)
    client.connect(("127.0.0.1", port))
    try:
        client.sendall(data)
    except OSError:
        pass  # refused, or not read
    return client


def median_s(served: ServerWithKeys) -> float:
    """Return the median latency of another client."""

    def once() -> float:
        began = time.perf_counter()
        (reply,) = exchange(served.port, head("GET", "/v1/users", f"authorization: Bearer {served.bearer}"))
        assert reply.status == 200
        return time.perf_counter() - began

    exchange(served.port, head("GET", "/healthz"), timeout_s=120)  # behind whole requests that came before
    return statistics.median(once() for _ in range(50))


def memory_mib(served: ServerWithKeys) -> dict[int, float]:
    """Return the resident memory of each worker."""
    pid = served.served.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [
        one for one in map(int, children) if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()
    ]
    return {worker: resident_mib(worker) for worker in workers or [pid]}


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
