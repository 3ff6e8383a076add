"""The real nginx and the real Caddy ask the gate, with the files of examples/gate: what the client gets."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.ports import free_port
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query
from tests.proxies import COMMANDS, EXAMPLES, RUN, running
from tests.server.raw_requests import (
    Reply,
    ServerWithKeys,
    database_of,
    run_command,
    serve_with_keys,
)

HOST = "api.example.com"
ROOT = Path(__file__).parents[2]
SCOPES = "orders:read,orders:write"
BODY = b'{"sku":"A1"}'
PLAIN = {"content-type": "text/plain"}


class Proxy(msgspec.Struct, frozen=True):
    """A proxy, and Latchkey behind it."""

    kind: str
    port: int
    latchkey: ServerWithKeys
    environ: dict[str, str]

    def key(self, name: str, *options: str, mode: str = "bearer", scopes: str = SCOPES) -> dict[str, Any]:
        """Create a key by a command."""
        made: dict[str, Any] = run_command(
            self.environ, "keys", "create", "--user", "ann@example.com", "--name", name, "--mode", mode,
            "--scopes", scopes, *options,
        )  # fmt: skip
        return made

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        host: str = HOST,
    ) -> Reply:
        """Make one request as raw bytes."""
        lines = {"host": host, **(headers or {})}
        if body:
            lines["content-length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with socket.create_connection(("127.0.0.1", self.port), 20) as client:
            client.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
            try:
                client.sendall(body)
            except OSError:
                assert len(body) > 100_000  # refused before the body was read
            return read_reply(client, has_body=method != "HEAD")


def read_reply(client: socket.socket, *, has_body: bool) -> Reply:
    """Return one answer; a proxy may reset a connection whose body it did not read, so nothing more is read."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = int(headers.get("content-length", 0)) if has_body else 0
    while len(body) < length:
        body += client.recv(65536)
    return Reply(int(status.split()[1]), headers, body)


def bearer(key: Mapping[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {key['secret']}"}


@pytest.fixture(scope="module", params=RUN)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("gate")
    port, service = free_port(), free_port()
    environ = {"LATCHKEY_GATE_RULES": str(EXAMPLES / "gate.toml"), "LATCHKEY_TRUSTED_PROXIES": "127.0.0.1"}
    with ExitStack() as stack:
        served = stack.enter_context(
            serve_with_keys(folder, database_of("sqlite", request, folder), environ=environ)
        )
        for scope in SCOPES.split(","):
            run_command(served.served.environ, "scopes", "add", scope)
        for place in ("proxy", "service"):
            (folder / place).mkdir()
        ports = {"latchkey": served.port, "proxy": port, "service": service}
        command = COMMANDS[request.param](folder / "proxy", ports)
        upstream = [sys.executable, "-m", "tests.server.gated_service", str(service)]
        python_path = {"PYTHONPATH": str(ROOT)}
        stack.enter_context(running(upstream, folder / "service", service, python_path))
        stack.enter_context(running(command, folder / "proxy", port))
        yield Proxy(request.param, port, served, served.served.environ)


@pytest.fixture(scope="module")
def key(proxy: Proxy) -> dict[str, Any]:
    return proxy.key("good")


@pytest.fixture(scope="module")
def signer(proxy: Proxy) -> dict[str, Any]:
    return proxy.key("signs", mode="signed")


def test_the_service_learns_who_is_calling(proxy: Proxy, key: dict[str, Any]) -> None:
    reply = proxy.ask("GET", "/orders/a%20b?x=1", bearer(key))

    seen = json.loads(reply.body)
    named = {name: value for name, value in seen["gate"].items() if value}
    assert reply.status == 200
    assert named == {
        "x-latchkey-owner": str(key["user_id"]),
        "x-latchkey-key": key["access_key"],
        "x-latchkey-scopes": "orders:read orders:write",
        "x-latchkey-environment": "live",
    }
    assert (seen["path"], seen["credentials"]) == ("/orders/a%20b", [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_every_method_gets_through(proxy: Proxy, key: dict[str, Any], method: str) -> None:
    body = BODY if method in {"POST", "PUT", "DELETE"} else b""

    reply = proxy.ask(method, "/orders/7", bearer(key), body)

    assert reply.status == 200
    if method == "HEAD":
        assert reply.body == b""
        return
    seen = json.loads(reply.body)
    assert (seen["method"], seen["body_bytes"]) == (method, len(body))


def test_a_large_upload_gets_through(proxy: Proxy, key: dict[str, Any]) -> None:
    reply = proxy.ask("POST", "/orders", bearer(key), b"x" * (8 * 1024 * 1024))

    assert json.loads(reply.body)["body_bytes"] == 8 * 1024 * 1024


def test_a_large_upload_without_a_key_is_refused(proxy: Proxy) -> None:
    assert proxy.ask("POST", "/orders", None, b"x" * (1024 * 1024)).status == 401


def test_a_public_request_needs_no_key(proxy: Proxy) -> None:
    reply = proxy.ask("GET", "/health")

    assert reply.status == 200
    assert not any(json.loads(reply.body)["gate"].values())


@pytest.mark.parametrize(
    "method, target, headers, status, code",
    [
        pytest.param("GET", "/orders", {}, 401, "unauthenticated", id="missing"),
        pytest.param("GET", "/orders", {"authorization": "Bearer lks_x"}, 401, "unauthenticated", id="wrong"),
        pytest.param("POST", "/orders", {"content-length": "0"}, 401, "unauthenticated", id="an empty POST"),
        pytest.param("GET", "/orders", {"authorization": "Bearer a", "secret": "b"}, 400, "two_credentials", id="two"),
        pytest.param("GET", "/admin", {}, 403, "no_gate_rule", id="no rule"),
        pytest.param("GET", "/health/%2e%2e/orders", {}, 400, "ambiguous_request", id="dot segments"),
        pytest.param("GET", "/health%2F..%2Forders", {}, 400, "ambiguous_request", id="encoded slashes"),
        pytest.param("GET", "//health", {}, 400, "ambiguous_request", id="two slashes"),
        pytest.param("GET", "/health;/../orders", {}, 400, "ambiguous_request", id="a semicolon"),
        pytest.param("GET", "/%68ealth%00", {}, 400, None, id="a null character"),
        pytest.param("GET", "/orders", {"x-latchkey-owner": "1"}, 400, "ambiguous_request", id="a spoofed owner"),
        pytest.param("GET", "/health", {"x-latchkey-owner": "1"}, 400, "ambiguous_request", id="spoofed, public"),
        pytest.param("GET", "/orders", {"x-original-uri": "/health"}, 401, "unauthenticated", id="a spoofed URI"),
        pytest.param("GET", "/orders", {"x-forwarded-uri": "/health"}, 401, "unauthenticated", id="another URI"),
        pytest.param("GET", "/orders", {"x-forwarded-method": "POST"}, 401, "unauthenticated", id="another method"),
        pytest.param("GET", "/orders", {"x-http-method-override": "PUT"}, 400, "ambiguous_request", id="an override"),
    ],
)  # fmt: skip
def test_a_refusal_reaches_the_client(
    proxy: Proxy, method: str, target: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    reply = proxy.ask(method, target, headers)

    assert reply.status == status, reply
    if code is None:
        return  # nginx refuses it before it asks
    assert reply.code == code
    assert reply.headers["content-type"] == "application/problem+json"
    assert "no-store" in reply.headers["cache-control"]
    assert ("www-authenticate" in reply.headers) is (status == 401)
    assert ("accept-signature" in reply.headers) is (status == 401)
    assert reply.headers["x-request-id"] == json.loads(reply.body)["request_id"]


def test_the_headers_of_the_gate_never_come_from_the_client(proxy: Proxy, key: dict[str, Any]) -> None:
    """nginx drops a name with an underscore, Caddy passes it on to the gate, which refuses it."""
    for name in ("X_Latchkey_Owner", "X-Latchkey_Owner", "x-latchkey-admin"):
        reply = proxy.ask("GET", "/orders", {**bearer(key), name: "evil"})
        assert b"evil" not in reply.body
        assert reply.status in {200, 400}


def test_a_client_cannot_ask_for_itself(proxy: Proxy, key: dict[str, Any]) -> None:
    assert proxy.ask("GET", "/_gate", bearer(key)).status in {403, 404}
    assert proxy.ask("GET", "/v1/gate", bearer(key)).status == 403


def test_another_host_is_not_served(proxy: Proxy, key: dict[str, Any]) -> None:
    """Caddy has no site of this name, and answers with nothing."""
    reply = proxy.ask("GET", "/orders", bearer(key), host="other.example.com")

    assert (reply.status, reply.body if proxy.kind == "caddy" else reply.code) == (
        (200, b"") if proxy.kind == "caddy" else (403, "no_gate_rule")
    )


def test_a_key_without_the_scope_is_refused(proxy: Proxy) -> None:
    reader = proxy.key("reader", scopes="orders:read")

    assert proxy.ask("GET", "/orders", bearer(reader)).status == 200
    reply = proxy.ask("POST", "/orders", bearer(reader), BODY)

    assert (reply.status, reply.code) == (403, "scope_missing")
    assert 'scope="orders:write"' in reply.headers["www-authenticate"]


def test_a_revoked_key_is_refused(proxy: Proxy) -> None:
    ended = proxy.key("ended")
    run_command(proxy.environ, "keys", "revoke", ended["access_key"])

    reply = proxy.ask("GET", "/orders", bearer(ended))

    assert (reply.status, reply.code) == (401, "key_revoked")


def test_a_key_over_its_limit_gets_429(proxy: Proxy) -> None:
    few = proxy.key("few", "--limit", "burst=6/1h")

    replies = [
        proxy.ask("POST", "/orders", bearer(few), BODY),
        proxy.ask("GET", "/orders", bearer(few)),
        proxy.ask("GET", "/orders", bearer(few)),
    ]

    assert [reply.status for reply in replies] == [200, 200, 429]
    assert replies[2].code == "rate_limited"
    assert 1 <= int(replies[2].headers["retry-after"]) <= 3600
    if proxy.kind == "nginx":
        assert replies[0].headers["ratelimit"].startswith('"burst";r=1')


def test_a_key_without_credits_gets_402(proxy: Proxy) -> None:
    paid = proxy.key("paid", "--credits", "5")

    replies = [proxy.ask("POST", "/orders", bearer(paid), BODY) for _ in range(2)]

    assert [reply.status for reply in replies] == [200, 402]
    assert replies[1].code == "credits_used_up"


def test_a_key_is_bound_to_networks_of_the_client(proxy: Proxy) -> None:
    bound = proxy.key("bound", "--networks", "192.0.2.0/24")

    for spoofed in (
        {},
        {"x-forwarded-for": "192.0.2.7"},
        {"x-real-ip": "192.0.2.7"},
        {"forwarded": "for=192.0.2.7"},
    ):
        reply = proxy.ask("GET", "/orders", {**bearer(bound), **spoofed})
        assert (reply.status, reply.code) == (403, "network_not_allowed")


def signed(signer: Mapping[str, Any], form: str, nonce: str) -> tuple[str, dict[str, str]]:
    """Return the target and the headers of a signed POST of `BODY`."""
    secret, access_key = Secret(signer["secret"]), AccessKey(signer["access_key"])
    if form == "query":
        query, mac = sign_query(
            secret, "", access_key, time.time(), method="POST", path="/orders/a%20b", body=BODY, nonce=nonce
        )
        return f"/orders/a%20b?{query}", {"secret": mac}
    headers = sign_message(
        secret, access_key, time.time(), method="POST", scheme="http", authority=HOST, raw_path="/orders/a%20b",
        nonce=nonce, body=BODY, content_type="application/json",
    )  # fmt: skip
    return "/orders/a%20b", {name.lower(): value for name, value in headers.items()}


@pytest.mark.parametrize("form", ["query", "message"])
def test_a_signed_request_gets_through_once(proxy: Proxy, signer: dict[str, Any], form: str) -> None:
    target, headers = signed(signer, form, f"nonce-of-the-{form}-form")

    first = proxy.ask("POST", target, headers, BODY)
    second = proxy.ask("POST", target, headers, BODY)

    assert (first.status, json.loads(first.body)["body_bytes"]) == (200, len(BODY))
    assert (second.status, second.code) == (401, "replayed")


@pytest.mark.parametrize("form", ["query", "message"])
def test_another_body_is_noticed_by_the_service(proxy: Proxy, signer: dict[str, Any], form: str) -> None:
    """The proxy asks without the body, so the digest of the gate is compared by the service."""
    target, headers = signed(signer, form, f"another-in-the-{form}-form")

    reply = proxy.ask("POST", target, headers, BODY[::-1])

    assert (reply.status, json.loads(reply.body)) == (
        401,
        {"error": "the body is not the one that was signed"},
    )


@pytest.mark.parametrize("form", ["query", "message"])
def test_a_signature_of_another_request_is_refused(proxy: Proxy, signer: dict[str, Any], form: str) -> None:
    target, headers = signed(signer, form, f"for-another-{form}-target")

    assert proxy.ask("PUT", target, headers, BODY).status == 401
    assert proxy.ask("POST", target.replace("a%20b", "a%20c"), headers, BODY).status == 401


def upgrade(proxy: Proxy, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Ask for a WebSocket, and return the head of the answer and what comes back of 4 bytes."""
    lines = {
        "host": HOST, "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", **headers,
    }  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as client:
        client.sendall(f"GET /live HTTP/1.1\r\n{head}\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(4096)
        if not data.startswith(b"HTTP/1.1 101 "):
            return data, b""
        client.sendall(b"ping")
        return data, client.recv(4096)


def test_a_websocket_gets_through(proxy: Proxy, key: dict[str, Any]) -> None:
    head, echoed = upgrade(proxy, bearer(key))

    assert head.startswith(b"HTTP/1.1 101 "), head
    assert f"x-seen-owner: {key['user_id']}".encode() in head.lower()
    assert echoed == b"ping"


def test_a_websocket_without_a_key_is_refused(proxy: Proxy) -> None:
    head, _ = upgrade(proxy, {})

    assert head.startswith(b"HTTP/1.1 401 "), head


def test_a_cached_answer_belongs_to_its_key(proxy: Proxy, key: dict[str, Any]) -> None:
    if proxy.kind != "nginx":
        other = proxy.ask("GET", "/reports/1", bearer(key))
        assert "x-cache" not in other.headers
        return
    second = proxy.key("second")

    replies = [proxy.ask("GET", "/reports/1", bearer(one)) for one in (key, key, second)]
    nobody = proxy.ask("GET", "/reports/1")

    assert [reply.headers["x-cache"] for reply in replies] == ["MISS", "HIT", "MISS"]
    keys = [json.loads(reply.body)["gate"]["x-latchkey-key"] for reply in replies]
    assert keys == [key["access_key"], key["access_key"], second["access_key"]]
    assert nobody.status == 401


def test_nothing_gets_through_while_latchkey_does_not_answer(proxy: Proxy, key: dict[str, Any]) -> None:
    """The last test of this file: it stops Latchkey."""
    process = proxy.latchkey.served.process
    os.kill(process.pid, signal.SIGTERM)
    process.wait(30)

    for target in ("/orders", "/health"):
        reply = proxy.ask("GET", target, bearer(key))
        assert reply.status == {"nginx": 503, "caddy": 502, "envoy": 503}[proxy.kind]
    if proxy.kind == "nginx":
        assert (reply.code, reply.headers["retry-after"]) == ("unavailable", "1")
