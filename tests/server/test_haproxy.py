"""A real HAProxy, which forwards trailers and Upgrade: only HAProxy sets the client address."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from benchmarks.ports import free_port
from latchkey.service.authentication.wire.message_signature import sign_message
from tests.server.raw_requests import (
    SERVERS,
    Reply,
    ServerWithKeys,
    database_of,
    head,
    read_all,
    run_command,
    serve_with_keys,
    split_responses,
)

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONFIG = """
global
    maxconn 200
defaults
    mode http
    option forwardfor
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen all
    bind 127.0.0.1:{port}
    {rules}
    server one 127.0.0.1:{upstream} source 127.0.0.1
"""
ENVIRON = {"LATCHKEY_TRUSTED_PROXIES": "127.0.0.1/32"}
HOME, ELSEWHERE = "127.0.0.9", "127.0.0.8"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


class Front(msgspec.Struct, frozen=True):
    """A server behind HAProxy, and a bearer key that is restricted to `HOME`."""

    server: ServerWithKeys
    port: int
    bound: str

    def send(self, client: str, *parts: bytes, port: int | None = None) -> list[Reply]:
        """Send parts from an address, and read until the end."""
        with socket.create_connection(("127.0.0.1", port or self.port), 20, (client, 0)) as connection:
            for number, part in enumerate(parts):
                if number:
                    time.sleep(0.1)
                connection.sendall(part)
            return split_responses(read_all(connection))


class Proxy:
    """An HAProxy on a free port in front of another one, until the end of the block."""

    def __init__(self, folder: Path, upstream: int, *rules: str) -> None:
        self.port = free_port()
        self.config = folder / "haproxy.cfg"
        text = CONFIG.format(port=self.port, upstream=upstream, rules="\n    ".join(rules))
        self.config.write_text(text)

    def __enter__(self) -> int:
        assert HAPROXY, "haproxy not found: apt-get install haproxy"
        self.running = subprocess.Popen([HAPROXY, "-q", "-db", "-f", self.config], stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self.port
        raise AssertionError("HAProxy does not listen")

    def __exit__(self, *_: object) -> None:
        self.running.terminate()
        self.running.wait(10)


@pytest.fixture(scope="module", params=SERVERS)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    kind, workers = request.param
    folder = tmp_path_factory.mktemp("served")
    url = database_of(kind, request, folder)
    with (
        serve_with_keys(folder, url, workers=workers, environ=ENVIRON) as served,
        Proxy(folder, served.port) as port,
    ):
        key = run_command(
            served.served.environ, "keys", "create", "--user", "ann@example.com", "--name", "home",
            "--mode", "bearer", "--scopes", "users:read", "--networks", f"{HOME}/32",
        )  # fmt: skip
        yield Front(served, port, key["secret"])


def chunked(*headers: str, trailers: list[str]) -> bytes:
    """Return a request with a chunked body and trailers."""
    begin = head("GET", "/v1/me", "transfer-encoding: chunked", *headers)
    return begin + "\r\n".join(["2\r\n{}\r\n0", *trailers, "", ""]).encode()


def bearer(secret: str) -> str:
    return f"authorization: Bearer {secret}"


def test_haproxy_does_pass_trailers_on(tmp_path: Path) -> None:
    """Otherwise the tests below would show nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Proxy(tmp_path, listening.getsockname()[1]) as port,
    ):
        seen: list[bytes] = []

        def serve() -> None:
            while b"x-forged: 1" not in b"".join(seen[-1:]):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(2)
                    data = b""
                    while b"\r\n0\r\n" not in data or not data.endswith(b"\r\n\r\n"):
                        data += (part := connection.recv(65536))
                        if not part:
                            break
                    seen.append(data)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.sendall(chunked(trailers=["x-forged: 1"]))
            (reply,) = split_responses(read_all(client))
        thread.join(10)

    assert reply.status == 200
    assert seen[-1].index(b"x-forwarded-for: 127.0.0.1") < seen[-1].index(b"x-forged: 1")


def test_the_client_is_whom_haproxy_names(front: Front) -> None:
    request = head("GET", "/v1/me", bearer(front.bound))

    assert [one.status for one in front.send(HOME, request)] == [200]
    (refused,) = front.send(ELSEWHERE, request)
    assert (refused.status, refused.code) == (403, "network_not_allowed")


@pytest.mark.parametrize("name", ["x-forwarded-for", "X-Forwarded-For"])
def test_a_trailer_names_nobody(front: Front, name: str) -> None:
    """It neither opens the network to others, nor closes it to the client in it."""
    request = chunked(bearer(front.bound), trailers=[f"{name}: {HOME}"])
    (forged,) = front.send(ELSEWHERE, request)
    parts = request.partition(b"0\r\n" + name.encode())
    (slowly,) = front.send(ELSEWHERE, parts[0], parts[1] + parts[2])
    (at_home,) = front.send(HOME, chunked(bearer(front.bound), trailers=[f"{name}: {ELSEWHERE}"]))

    assert {(one.status, one.code) for one in (forged, slowly)} == {(403, "network_not_allowed")}
    assert at_home.status == 200


def test_a_header_of_the_client_names_nobody(front: Front) -> None:
    (reply,) = front.send(ELSEWHERE, head("GET", "/v1/me", bearer(front.bound), f"x-forwarded-for: {HOME}"))

    assert (reply.status, reply.code) == (403, "network_not_allowed")


def test_a_trailer_is_no_credential(front: Front) -> None:
    (reply,) = front.send(HOME, chunked(trailers=[bearer(front.bound)]))

    assert (reply.status, reply.code) == (401, "unauthenticated")


def test_the_next_client_of_a_connection_has_none_either(front: Front) -> None:
    """HAProxy keeps its connections to the server, and reuses them for the next client."""
    request = chunked(bearer(front.bound), trailers=[f"x-forwarded-for: {HOME}", bearer(front.bound)])
    for _ in range(10):
        front.send(ELSEWHERE, request)
        assert [one.status for one in front.send(HOME, head("GET", "/v1/me"))] == [401]


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("framing", [f"content-length: {len(SMUGGLED)}", None], ids=["length", "chunked"])
def test_the_body_of_an_upgrade_is_no_request(front: Front, protocol: str, framing: str | None) -> None:
    """It would come from HAProxy's own address. HAProxy 2.6 removes Upgrade from such a request; other proxies may not."""
    body = SMUGGLED if framing else b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    request = "\r\n".join(
        [
            *("POST /v1/users HTTP/1.1", "host: x", "connection: close, upgrade", f"upgrade: {protocol}"),
            *(framing or "transfer-encoding: chunked", "", ""),
        ]
    ).encode()

    (at_once,) = front.send(HOME, request + body)
    (later,) = front.send(HOME, request, body)
    time.sleep(0.2)

    assert {at_once.code, later.code} <= {"unauthenticated", "upgrade_with_body"}
    assert "/smuggled" not in front.server.served.err.read_text()
    assert [one.status for one in front.send(HOME, head("GET", "/v1/me", bearer(front.bound)))] == [200]


def test_a_proxy_that_signs_adds_lines_of_its_own(front: Front, tmp_path: Path) -> None:
    """RFC 9421, section 4.1."""
    key = run_command(
        front.server.served.environ, "keys", "create", "--user", "ann@example.com", "--name", "signs",
        "--mode", "signed", "--scopes", "users:read",
    )  # fmt: skip
    rules = (
        """http-request add-header Signature-Input 'proxy=("@method");created=1;keyid="edge"'""",
        "http-request add-header Signature 'proxy=:AAAA:'",
    )
    with Proxy(tmp_path, front.server.port, *rules) as port:
        signed = sign_message(
            key["secret"], key["access_key"], time.time(),
            method="GET", scheme="http", authority="x", raw_path="/v1/me", nonce=f"n0nce-{port}-{time.time_ns()}",
        )  # fmt: skip
        request = head("GET", "/v1/me", *(f"{name}: {value}" for name, value in signed.items()))
        (reply,) = front.send(HOME, request, port=port)

    assert reply.status == 200, reply.body
