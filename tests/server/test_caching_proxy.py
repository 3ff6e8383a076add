"""A real caching nginx: no caller gets the answer of another."""

import getpass
import http.client
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from benchmarks.ports import free_port
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.authentication.wire.query_signature import sign_query
from tests.server.raw_requests import ServerWithKeys, database_of, run_command, serve_with_keys

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

CONFIG = """
daemon off;
user {user};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=all:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_cache all;
            proxy_cache_valid any 10m;
            proxy_cache_key $uri;
            add_header x-cache $upstream_cache_status always;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerWithKeys]:
    folder = tmp_path_factory.mktemp("cached")
    with serve_with_keys(folder, database_of("sqlite", request, folder)) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(served: ServerWithKeys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of an nginx that caches every answer that may be cached, whatever the query."""
    assert NGINX, "nginx not found: apt-get install nginx"
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(user=getpass.getuser(), folder=folder, port=port, upstream=served.port))
    running = subprocess.Popen([NGINX, "-p", folder, "-c", config], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                ask(port, "/healthz")
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        running.terminate()
        running.wait(10)


def ask(port: int, target: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", target, headers=headers or {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_the_proxy_does_cache_what_is_public(proxy: int) -> None:
    """Otherwise the tests below would show nothing."""
    ask(proxy, "/openapi.json")

    assert ask(proxy, "/openapi.json").headers["x-cache"] == "HIT"


def test_a_signed_read_is_answered_to_its_caller_alone(served: ServerWithKeys, proxy: int) -> None:
    key = run_command(
        {**served.served.environ}, "keys", "create", "--user", "ann@example.com", "--name", "signs",
        "--mode", "signed", "--scopes", "users:read",
    )  # fmt: skip
    query, proof = sign_query(Secret(key["secret"]), "", AccessKey(key["access_key"]), time.time())

    first = ask(proxy, f"/v1/me?{query}", {"secret": proof})
    nobody = ask(proxy, "/v1/me")

    assert (first.status, nobody.status) == (200, 401)
    assert {first.headers["cache-control"], nobody.headers["cache-control"]} == {"private, no-store"}


def test_a_bearer_read_is_answered_to_its_caller_alone(served: ServerWithKeys, proxy: int) -> None:
    path, headers = "/v1/users", {"authorization": f"Bearer {served.bearer}"}

    assert [ask(proxy, path, headers).status, ask(proxy, path).status] == [200, 401]
    assert ask(proxy, path, headers).headers["x-cache"] != "HIT"


@pytest.mark.parametrize("target", ["/", "/healthz", "/v1/me", "/nothing", "/openapi.json"])
def test_no_answer_is_sniffed(served: ServerWithKeys, target: str) -> None:
    assert ask(served.port, target).headers["x-content-type-options"] == "nosniff"
