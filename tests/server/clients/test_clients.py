"""The clients in examples/clients: the vectors, calls to a live server over a socket, and webhooks."""

import asyncio
import base64
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from latchkey import sign_call
from latchkey.service.operation import Operation
from tests.api import hold_key
from tests.browser import browsing
from tests.server.clients import drive
from tests.server.clients.refusing import REFUSING
from tests.server.conftest import Serving

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
VECTORS = json.loads((ROOT / "tests" / "vectors.json").read_text())
KEY, SECRET = drive.KEY, VECTORS[0]["secret"]
NOW, NONCE = 1700000000, "n0nce-0123456789abcdef"
TIMEOUT_S = 60

Client = Callable[..., str]
"""Carries out a command of the drivers, and returns what it prints."""


def program(*command: str) -> Client:
    """Return a client that is a program."""

    def run(*arguments: str, stdin: bytes = b"", **environ: str) -> str:
        done = subprocess.run(
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
            env={**os.environ, "KEY": KEY, "SECRET": SECRET, **environ},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().removesuffix("\n")

    return run


def in_python(send: drive.Send) -> Client:
    """Return a client in this process."""

    def run(*arguments: str, stdin: bytes = b"", **environ: str) -> str:
        return drive.drive(list(arguments), stdin, {"KEY": KEY, "SECRET": SECRET, **environ}, send)

    return run


CLIENTS: dict[str, Client] = {
    "httpx": in_python(drive.by_httpx),
    "httpx2": in_python(drive.by_httpx2),
    "requests": in_python(drive.by_requests),
    "bash": program("bash", str(HERE / "drive.sh")),
    "node": program("node", str(HERE / "drive.mjs")),
    "go": program("go"),  # built by the fixture
    "php": program("php", str(HERE / "drive.php")),
}
NEEDED = {"bash": ("curl", "openssl"), "node": ("node",), "go": ("go",), "php": ("php",)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the driver in Go, compiled."""
    made = tmp_path_factory.mktemp("go") / "drive"
    subprocess.run(["go", "build", "-o", made, "."], cwd=HERE / "go", check=True, timeout=300)
    return str(made)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return found(request.param, request)


def found(name: str, request: pytest.FixtureRequest) -> Client:
    """Return a client, or skip the test if its programs are not installed."""
    for needed in NEEDED.get(name, ()):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} not found")
    return program(request.getfixturevalue("built")) if name == "go" else CLIENTS[name]


def test_the_vectors_of_queries_come_out(client: Client) -> None:
    vectors = [one for one in VECTORS if one["form"] == "query"]

    printed = client("mac", SECRET, *[one["query_string"] for one in vectors])

    assert {one["secret"] for one in vectors} == {SECRET}
    assert printed.split("\n") == [one["secret_header"] for one in vectors]


def test_the_vectors_of_messages_come_out(client: Client) -> None:
    for one in VECTORS:
        if one["form"] == "message":
            query = f"?{one['query_string']}" if one["query_string"] else ""
            url = f"https://{one['authority']}{one['raw_path']}{query}"
            headers = one["headers"]
            given = [headers.get(name, "") for name in ("content-type", "idempotency-key")]

            printed = client("sign", "message", one["method"], url, one["body"], *given, str(NOW), NONCE)

            signed, *added = printed.split("\n")
            expected = {name: value for name, value in headers.items() if name == "content-digest"}
            assert signed == url
            assert dict(line.split(": ", 1) for line in added) == {
                **expected,
                "signature-input": one["signature_input"],
                "signature": one["signature"],
            }


@pytest.mark.parametrize("form", ["query", "message"])
def test_a_call_is_signed_as_latchkey_signs_it(client: Client, form: Any) -> None:
    """Its own function, which the vectors check as well, with all that a URL may contain."""
    url = "https://API.example.com:8443/v1/a%2Fb~c/%C3%BC?q=a%20b+c&&x&z=%26"
    body = '{"ü":1}'
    expected = sign_call(
        "PATCH", url, access_key=KEY, secret=SECRET, body=body, form=form, idempotency_key="k-1", now=NOW, nonce=NONCE
    )  # fmt: skip

    printed = client("sign", form, "PATCH", url, body, "application/json", "k-1", str(NOW), NONCE)

    signed, *added = printed.split("\n")
    assert signed.removeprefix("https://").lower() == expected.url.removeprefix("https://").lower()
    headers = {**expected.headers, **dict(line.split(": ", 1) for line in added)}
    assert headers == expected.headers


def available(request: pytest.FixtureRequest) -> dict[str, Client]:
    """Return the clients whose programs are installed; the tests above skip the others."""
    names = [name for name in CLIENTS if all(shutil.which(one) for one in NEEDED.get(name, ()))]
    return {name: found(name, request) for name in names}


@pytest.fixture
def routes() -> Sequence[Operation]:
    return REFUSING


KEY_BODY = '{"name": "ü", "mode": "bearer", "scopes": []}'
ORDER = '{"sku": "A1"}'
WRONG = {"SECRET": SECRET}
# Form, method, path, body, how far the client's clock is ahead, another key; and the outcome.
CALLS: list[tuple[tuple[str, str, str, str, str, dict[str, str]], tuple[int, Any]]] = [
    (("query", "GET", "/v1/me", "", "0", {}), (200, "signed key")),
    (("message", "POST", "/v1/me/keys", KEY_BODY, "0", {}), (201, "ü")),
    (("query", "POST", "/v1/me/keys", KEY_BODY, "-7200", {}), (201, "ü")),
    (("message", "GET", "/v1/me", "", "7200", {}), (200, "signed key")),
    (("query", "POST", "/v1/twice", ORDER, "0", {}), (200, 3)),
    (("message", "POST", "/v1/never", ORDER, "0", {}), (503, "attempt 4")),
    (("query", "POST", "/v1/hour", ORDER, "0", {}), (429, "attempt 1")),
    (("message", "GET", "/v1/me", "", "7200", WRONG), (401, None)),
]


def outcome(printed: str) -> tuple[int, Any]:
    """Return the status of a call, and what its body says about it."""
    status, body = printed.split("\n", 1)
    content = json.loads(body)
    match content:
        case {"key": {"name": name}} | {"name": name}:
            return int(status), name
        case {"attempts": attempts, "waited_s": waited_s}:
            return int(status), attempts if waited_s >= 1 else f"after {waited_s} s"
        case {"code": "unauthenticated"}:
            return int(status), None
        case {"detail": detail}:
            return int(status), detail
    raise AssertionError(printed)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_client_calls_a_live_server(serving: Serving, request: pytest.FixtureRequest) -> None:
    """All at the same time, in both forms, with a wrong clock, and with calls that are refused first."""
    clients = available(request)
    key = await hold_key(serving.app, mode="signed")
    held = {"KEY": key.access_key, "SECRET": key.secret}
    loop = asyncio.get_running_loop()

    with ThreadPoolExecutor(8) as threads:

        def start(
            client: Client, call: tuple[str, str, str, str, str, dict[str, str]]
        ) -> asyncio.Future[str]:
            form, method, path, body, ahead, other = call
            arguments = ("call", form, method, serving.url + path, body, ahead)
            return loop.run_in_executor(threads, partial(client, *arguments, **{**held, **other}))

        running = {name: [start(client, call) for call, _ in CALLS] for name, client in clients.items()}
        outcomes = {name: [outcome(await one) for one in calls] for name, calls in running.items()}

    expected = [expected for _, expected in CALLS]
    assert outcomes == dict.fromkeys(clients, expected)


WEBHOOK_SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
EVENT = '{"type": "key.revoked", "data": {"name": "ü"}}\n'


@pytest.mark.parametrize(
    "age_s, others, body, verdict",
    [
        pytest.param(0, "v1,b3RoZXI= ", EVENT, "valid key.revoked", id="two secrets"),
        pytest.param(0, "", EVENT.strip(), "invalid", id="another body"),
        pytest.param(310, "", EVENT, "invalid", id="too old"),
        pytest.param(-310, "", EVENT, "invalid", id="from the future"),
    ],
)
def test_webhooks_are_verified(client: Client, age_s: int, others: str, body: str, verdict: str) -> None:
    """They are signed by the library of Standard Webhooks, which verifies those of Latchkey in its own tests."""
    sent = int(time.time()) - age_s
    signature = Webhook(WEBHOOK_SECRET).sign("msg_1", datetime.fromtimestamp(sent, UTC), EVENT)

    printed = client("verify", WEBHOOK_SECRET, "msg_1", str(sent), others + signature, stdin=body.encode())

    assert printed == verdict


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_browser_calls_and_verifies(serving: Serving) -> None:
    """On a page of the service, with the module that Node uses."""
    key = await hold_key(serving.app, mode="signed")
    sent = int(time.time())
    signature = Webhook(WEBHOOK_SECRET).sign("msg_1", datetime.fromtimestamp(sent, UTC), EVENT)
    given = {
        "key": {"accessKey": key.access_key, "secret": key.secret}, "body": KEY_BODY,
        "secret": WEBHOOK_SECRET, "event": EVENT,
        "headers": {"webhook-id": "msg_1", "webhook-timestamp": str(sent), "webhook-signature": signature},
    }  # fmt: skip

    async with browsing() as watched:
        await watched.page.route(
            "**/latchkey.js",
            lambda route: route.fulfill(
                path=ROOT / "examples/clients/node/latchkey.js", content_type="text/javascript"
            ),
        )
        await watched.page.goto(serving.url + "/healthz")
        found = await watched.page.evaluate(
            """async ({ key, body, secret, event, headers }) => {
                const { Latchkey, verifyWebhook } = await import("/latchkey.js");
                const statuses = [];
                for (const form of ["query", "message"]) {
                    const ahead = () => Date.now() / 1000 + 7200;
                    const client = new Latchkey({ ...key, form, now: ahead });
                    statuses.push((await client.fetch(`${location.origin}/v1/me`)).status);
                    statuses.push((await client.fetch("/v1/me/keys", { method: "POST", body })).status);
                }
                return [statuses, (await verifyWebhook(secret, headers, event)).type];
            }""",
            given,
        )

    assert found == [[200, 201, 200, 201], "key.revoked"]
