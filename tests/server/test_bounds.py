"""A client that sends too much, too slowly or too often is refused with a problem, while others are served."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.raw_requests import (
    SERVERS,
    ServerWithKeys,
    database_of,
    exchange,
    head,
    read_all,
    serve_with_keys,
    split_responses,
)

HEADER_TIMEOUT_S = 2
KEEP_ALIVE_S = 1
CONNECTIONS = 30
ENVIRON = {
    "LATCHKEY_HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S),
    "LATCHKEY_KEEP_ALIVE_S": str(KEEP_ALIVE_S),
    "LATCHKEY_CONNECTIONS": str(CONNECTIONS),
    "LATCHKEY_BODY_LIMIT_BYTES": "200000",
    "LATCHKEY_REQUEST_MEMORY_BYTES": "200000",
    "LATCHKEY_PIPELINED_REQUESTS": "4",
}
BEGUN = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
WHOLE = BEGUN + b"\r\n"
LAST = head("GET", "/healthz")


@pytest.fixture(scope="module", params=SERVERS)
def workers(request: pytest.FixtureRequest) -> tuple[str, int]:
    kind, number = request.param
    return kind, number


@pytest.fixture(scope="module")
def served(
    workers: tuple[str, int], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerWithKeys]:
    kind, number = workers
    folder: Path = tmp_path_factory.mktemp("served")
    url = database_of(kind, request, folder)
    with serve_with_keys(folder, url, workers=number, environ=ENVIRON) as found:
        yield found


@pytest.fixture(autouse=True)
def _others_are_served(served: ServerWithKeys) -> Iterator[None]:
    """Assert after each test that another client is served."""
    yield
    (reply,) = exchange(served.port, LAST)
    assert reply.status == 200


def upload(served: ServerWithKeys, body: bytes = b"", *, declared: int = 100_000) -> bytes:
    """Return a request with an incomplete body."""
    return (
        f"POST /v1/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.bearer}\r\n"
        f"content-type: application/json\r\ncontent-length: {declared}\r\n\r\n"
    ).encode() + body


def connect(served: ServerWithKeys, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", served.port), 20)
    client.sendall(data)
    return client


# ---------------------------------------------------------------------- too much


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([BEGUN, *[b"x-%d: y\r\n" % number for number in range(200)], b"\r\n"], id="lines"),
        pytest.param([BEGUN, b"x: " + b"y" * 16_384 + b"\r\n\r\n"], id="one line"),
        pytest.param([BEGUN, *[b"x: " + b"y" * 1_000 + b"\r\n"] * 20, b"\r\n"], id="bytes"),
        pytest.param([BEGUN, b"x: ", *[b"y" * 1_000_000] * 60], id="60 MB of one line"),
        pytest.param([BEGUN, *[b"x: y\r\n" * 160_000] * 60], id="60 MB of lines"),
        pytest.param([BEGUN, b"x" * 1_000_000], id="a name without an end"),
    ],
)
def test_headers(served: ServerWithKeys, parts: list[bytes]) -> None:
    (*_, reply) = exchange(served.port, *parts)

    assert (reply.status, reply.code) == (431, "headers_too_large")
    assert reply.headers["connection"] == "close"
    assert reply.headers["content-type"] == "application/problem+json"


def test_trailers(served: ServerWithKeys) -> None:
    """They are dropped, but bounded: a request that waits for its body is refused, an answered one is closed."""
    begin = upload(served).replace(b"content-length: 100000", b"transfer-encoding: chunked")
    trailer = [b"0\r\nx: ", *[b"y" * 1_000_000] * 60]

    (refused,) = exchange(served.port, begin, *trailer)
    public = BEGUN + b"transfer-encoding: chunked\r\n\r\n"
    (answered,) = exchange(served.port, public, b"".join(trailer), pause_s=0.5)

    assert (refused.status, refused.code) == (431, "headers_too_large")
    assert answered.status == 200


def test_a_url(served: ServerWithKeys) -> None:
    (reply,) = exchange(served.port, b"GET /healthz?" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")

    assert (reply.status, reply.code) == (414, "uri_too_long")


def test_requests_within_the_bounds_are_accepted(served: ServerWithKeys) -> None:
    (reply,) = exchange(served.port, head("GET", "/healthz", *["x: " + "y" * 100] * 90))

    assert reply.status == 200


def test_requests_that_are_sent_ahead(served: ServerWithKeys) -> None:
    replies = exchange(served.port, WHOLE * 1_000)

    assert [one.status for one in replies] == [200] * 5 + [503]
    assert replies[-1].code == "server_busy"
    assert replies[-1].headers["retry-after"]


def test_requests_ahead_within_the_bound(served: ServerWithKeys) -> None:
    assert [one.status for one in exchange(served.port, WHOLE * 4 + LAST)] == [200] * 5


def test_data_that_is_not_http_is_answered_in_its_turn(served: ServerWithKeys) -> None:
    one, two = exchange(served.port, WHOLE + b"\0\r\n\r\n")

    assert (one.status, two.status, two.code) == (200, 400, "malformed_request")


def test_a_broken_body(served: ServerWithKeys) -> None:
    """The application waits for it, and sees a disconnect."""
    request = head("POST", "/v1/users", f"authorization: Bearer {served.bearer}", "content-type: application/json",
                   "transfer-encoding: chunked")  # fmt: skip

    (reply,) = exchange(served.port, request, b'5\r\n{"ema\r\nnonsense\r\n', pause_s=0.1)

    assert (reply.status, reply.code) == (400, "malformed_request")


# ---------------------------------------------------------------------- too slowly


def test_headers_without_an_end(served: ServerWithKeys) -> None:
    """A byte now and then does not extend the deadline."""
    began = time.monotonic()
    with connect(served, BEGUN) as client:
        client.settimeout(0.3)
        data = b""
        while not data:
            try:
                data = client.recv(65536)
            except TimeoutError:
                client.sendall(b"x")
        client.settimeout(20)
        (reply,) = split_responses(data + read_all(client))

    assert (reply.status, reply.code) == (408, "headers_timeout")
    assert HEADER_TIMEOUT_S - 0.1 < time.monotonic() - began < HEADER_TIMEOUT_S + 5


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"G"])
def test_a_first_request_that_does_not_come(served: ServerWithKeys, sent: bytes) -> None:
    (reply,) = exchange(served.port, sent)

    assert (reply.status, reply.code) == (408, "headers_timeout")


@pytest.mark.parametrize("behind", [b"", b"\r\n"])
def test_a_next_request_that_does_not_come(served: ServerWithKeys, behind: bytes) -> None:
    """It is closed without an answer, which the client could mistake for the answer to its next request."""
    began = time.monotonic()
    (reply,) = exchange(served.port, WHOLE, behind, pause_s=0.2)

    assert reply.status == 200
    assert time.monotonic() - began < KEEP_ALIVE_S + HEADER_TIMEOUT_S + 5


def test_half_a_next_request(served: ServerWithKeys) -> None:
    one, two = exchange(served.port, WHOLE, BEGUN, pause_s=0.2)

    assert (one.status, two.status) == (200, 408)


def test_a_body_that_nobody_waits_for(served: ServerWithKeys) -> None:
    """The request was answered before: the rest may arrive for a while, but not for ever."""
    (reply,) = exchange(
        served.port, b"POST /v1/users HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n12345"
    )

    assert reply.status == 401


# ---------------------------------------------------------------------- too often


@pytest.mark.parametrize("waiting", ["a first request", "headers", "a next request", "a body"])
def test_connections(served: ServerWithKeys, workers: tuple[str, int], waiting: str) -> None:
    """Those that have waited longest are closed, with an answer unless they had one."""
    data = {
        "a first request": b"",
        "headers": BEGUN,
        "a next request": WHOLE,
        "a body": upload(served, b"{"),
    }[waiting]
    count = CONNECTIONS * workers[1] * 3
    clients = []
    try:
        for _ in range(count):
            clients.append(connect(served, data))
        (good,) = exchange(served.port, LAST)
        replies = []
        for client in clients[: CONNECTIONS // 2]:
            replies.append(split_responses(read_all(client))[-1])
    finally:
        for client in clients:
            client.close()

    assert good.status == 200
    expected = {"a next request": {200}}.get(waiting, {503, 408})
    assert {one.status for one in replies} <= expected
    assert replies[0].code in {None, "server_busy", "headers_timeout"}


def test_bodies(served: ServerWithKeys, workers: tuple[str, int]) -> None:
    """There is memory for two, and the third replaces the first."""
    clients = [connect(served, upload(served, b"x" * 90_000)) for _ in range(workers[1] * 10)]
    try:
        (first,) = split_responses(read_all(clients[0]))
        (good,) = exchange(served.port, upload(served, b" " * 99_000 + b"{}", declared=99_002))
    finally:
        for client in clients:
            client.close()

    assert (first.status, first.code) == (503, "server_busy")
    assert good.status == 422, "a whole body is read"


def test_a_flood_of_refusals_is_one_line_a_second(served: ServerWithKeys, workers: tuple[str, int]) -> None:
    before = len(re.findall("refused a connection|Invalid HTTP", served.served.err.read_text()))
    began = time.monotonic()
    for _ in range(200):
        exchange(served.port, b"\0\r\n\r\n")
    took_s = time.monotonic() - began
    lines = len(re.findall("refused a connection|Invalid HTTP", served.served.err.read_text())) - before

    assert 1 <= lines <= 2 * workers[1] * (took_s + 2)
