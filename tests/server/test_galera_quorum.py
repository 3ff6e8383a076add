"""A node without quorum, directly and behind HAProxy, and one that hangs. The long form: `make test-galera`."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import httpx2
import msgspec
import pytest

from benchmarks.ports import free_port
from latchkey.service.app import create_app
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.settings import Settings
from tests import galera
from tests.api import HeldKey, hold_key
from tests.conftest import KEYRING, migrate
from tests.galera import PrivateGalera
from tests.processes import Served
from tests.server.test_haproxy import HAPROXY
from tests.service.limits.rules import limit

pytestmark = [
    pytest.mark.galera,
    pytest.mark.skipif(not galera.is_chosen(), reason="the long form: make test-galera"),
]

TIMEOUT_S = 2
TIMES = 6
CONFIG = """
global
    maxconn 200
defaults
    mode tcp
    timeout connect 1s
    timeout client 60s
    timeout server 60s
listen nodes
    bind 127.0.0.1:{port}
    option httpchk
    default-server check port {check} inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
"""


class Check:
    """The check with which HAProxy determines whether a node may be used, like Galera's own script: 503 without quorum."""

    def __init__(self) -> None:
        self.quorum = True
        check = self

        class Handler(BaseHTTPRequestHandler):
            def do_OPTIONS(self) -> None:
                self.send_response(200 if check.quorum else 503)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Situation(msgspec.Struct, frozen=True):
    """A cluster that has lost two of its three nodes, services that were running before, and their keys."""

    cluster: PrivateGalera
    services: dict[str, Served]
    keys: dict[str, HeldKey]


@pytest.fixture(scope="module")
def situation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Situation]:
    with ExitStack() as running:
        cluster = running.enter_context(PrivateGalera())
        first = cluster.nodes[0]
        asyncio.run(migrate(Settings(database_url=first.url)))
        keys = asyncio.run(make_keys(first.url))
        check = running.enter_context(Check())
        folder = tmp_path_factory.mktemp("haproxy")
        port = running.enter_context(NodesProxy(folder, cluster, check.port))
        services = {
            name: running.enter_context(
                Served(
                    tmp_path_factory.mktemp("service"),
                    "serve",
                    environ={
                        "LATCHKEY_DATABASE_URL": url,
                        "LATCHKEY_KEYRING": KEYRING,
                        "LATCHKEY_DATABASE_TIMEOUT_S": str(TIMEOUT_S),
                        "LATCHKEY_POOL_SIZE": "4",
                    },
                )
            )
            for name, url in {
                "direct": first.url,
                "behind HAProxy": first.url.replace(f":{first.port}/", f":{port}/"),
            }.items()
        }
        for served in services.values():  # they have pooled connections
            assert httpx2.get(f"{served.url}/readyz").status_code == 200
            assert httpx2.get(f"{served.url}/v1/me", headers=[keys["bearer"].bearer]).status_code == 200
        for node in cluster.nodes[1:]:
            node.kill()
        first.wait_for("wsrep_cluster_status", "non-Primary")
        check.quorum = False
        yield Situation(cluster, services, keys)


async def make_keys(url: str) -> dict[str, HeldKey]:
    app = create_app(Settings(database_url=url, keyring=KEYRING))
    try:
        return {
            "bearer": await hold_key(app),
            "limited": await hold_key(app, limits=[limit("burst", 1000)]),
            "signed": await hold_key(app, mode="signed"),
        }
    finally:
        await app.state.db.close()


class NodesProxy:
    """An HAProxy in front of the nodes, until the end of the block."""

    def __init__(self, folder: Path, cluster: PrivateGalera, check_port: int) -> None:
        self.port = free_port()
        self.config = folder / "haproxy.cfg"
        servers = [f"    server n{node.number} 127.0.0.1:{node.port}" for node in cluster.nodes]
        self.config.write_text(CONFIG.format(port=self.port, check=check_port) + "\n".join(servers) + "\n")

    def __enter__(self) -> int:
        assert HAPROXY, "haproxy not found: apt-get install haproxy"
        self.running = subprocess.Popen([HAPROXY, "-q", "-db", "-f", self.config], stderr=subprocess.DEVNULL)
        return self.port

    def __exit__(self, *_: object) -> None:
        self.running.terminate()
        self.running.wait(10)


def ask(served: Served, keys: dict[str, HeldKey], name: str, number: int) -> httpx2.Response:
    new = {"email": f"{name}{number}@example.com".replace(" ", ""), "name": "Ann"}
    with httpx2.Client(base_url=served.url, timeout=30) as client:
        match name:
            case "readiness":
                return client.get("/readyz")
            case "a read":
                return client.get("/v1/users", headers=[keys["bearer"].bearer])
            case "a limited read":
                return client.get("/v1/me", headers=[keys["limited"].bearer])
            case "a write":
                return client.post("/v1/users", json=new, headers=[keys["bearer"].bearer])
            case "an idempotent write":
                headers = [keys["bearer"].bearer, ("idempotency-key", f"{name}{number}")]
                return client.post("/v1/users", json=new, headers=headers)
            case _:
                key = keys["signed"]
                signed, mac = sign_query(
                    key.secret, "", key.access_key, time.time(), method="GET", path="/v1/me", body=b""
                )
                return client.get(f"/v1/me?{signed}", headers={"secret": mac})


CALLS = ["readiness", "a read", "a limited read", "a write", "an idempotent write", "a signed call"]


@pytest.mark.parametrize("way", ["direct", "behind HAProxy"])
@pytest.mark.parametrize("name", CALLS)
def test_without_quorum_a_call_is_a_503_of_ours(situation: Situation, way: str, name: str) -> None:
    served = situation.services[way]

    answers = [ask(served, situation.keys, name, number) for number in range(TIMES)]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
        assert "retry-after" in answer.headers
    assert httpx2.get(f"{served.url}/healthz").status_code == 200


@pytest.mark.parametrize("name", CALLS)
def test_at_a_node_that_hangs_a_call_ends_within_one_timeout(situation: Situation, name: str) -> None:
    served = situation.services["direct"]
    with situation.cluster.nodes[0].frozen():
        begun = time.monotonic()
        answer = ask(served, situation.keys, name, TIMES)
        took_s = time.monotonic() - begun

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert took_s < TIMEOUT_S + 1
