"""Fields after a body never become headers, whatever command started the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MARIADB
from tests.server.raw_requests import (
    README_COMMAND,
    Reply,
    ServerWithKeys,
    database_of,
    exchange,
    head,
    serve_with_keys,
)

ELSEWHERE = "198.51.100.7"
ENVIRON = {"LATCHKEY_TRUSTED_PROXIES": "127.0.0.1/32", "LATCHKEY_AUTH_FAILURES_PER_MIN": "20"}
TRACE = [*README_COMMAND, "--log-level", "trace"]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("sqlite", 1, None), id="serve"),
        pytest.param(("mariadb", 4, None), id="serve-4-workers", marks=MARIADB.marks),
        pytest.param(("sqlite", 1, README_COMMAND), id="readme"),
        pytest.param(("sqlite", 1, TRACE), id="uvicorn-trace"),
        pytest.param(("sqlite", 1, [*README_COMMAND, "--http", "h11"]), id="uvicorn-h11"),
    ],
)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerWithKeys]:
    kind, workers, arguments = request.param
    folder: Path = tmp_path_factory.mktemp("served")
    url = database_of(kind, request, folder)
    with serve_with_keys(folder, url, workers=workers, arguments=arguments, environ=ENVIRON) as found:
        yield found


@pytest.fixture(params=["at once", "in a second packet"])
def together(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "at once")


def send(
    server: ServerWithKeys,
    method: str,
    path: str,
    headers: list[str],
    body: bytes,
    trailers: list[str],
    together: bool,
) -> Reply:
    """Send a chunked body and trailers."""
    begin = head(method, path, "transfer-encoding: chunked", *headers)
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    end = "\r\n".join(["0", *trailers, "", ""]).encode()
    parts = [begin + chunk + end] if together else [begin + chunk, end]
    (reply,) = exchange(server.port, *parts, pause_s=0.1)
    return reply


def bearer(secret: str) -> str:
    return f"authorization: Bearer {secret}"


def test_a_credential(served: ServerWithKeys, together: bool) -> None:
    reply = send(served, "GET", "/v1/me", [], b"", [bearer(served.bearer)], together)

    assert (reply.status, reply.code) == (401, "unauthenticated")
    assert send(served, "GET", "/v1/me", [bearer(served.bearer)], b"", ["x: y"], together).status == 200


def test_the_address_of_the_client(served: ServerWithKeys, together: bool) -> None:
    forged = send(
        served, "GET", "/v1/me", [bearer(served.bound)], b"", [f"x-forwarded-for: {ELSEWHERE}"], together
    )
    told = send(
        served, "GET", "/v1/me", [bearer(served.bound), f"x-forwarded-for: {ELSEWHERE}"], b"", [], together
    )

    assert (forged.status, forged.code) == (403, "network_not_allowed")
    assert told.status == 200, "a trusted proxy says it in a header"


def test_an_idempotency_key(served: ServerWithKeys, together: bool) -> None:
    """A field that the signature does not cover must not be added: here it would be a key that merges two calls."""
    email = "once@example.com" if together else "later@example.com"
    body = b'{"email":"%b","name":"n"}' % email.encode()
    headers = [bearer(served.bearer), "content-type: application/json"]
    first, second = (
        send(served, "POST", "/v1/users", headers, body, ['idempotency-key: "one"'], together)
        for _ in range(2)
    )

    assert (first.status, second.status) == (201, 409)
    assert "idempotent-replayed" not in second.headers


def test_the_id_of_the_request(served: ServerWithKeys, together: bool) -> None:
    reply = send(served, "GET", "/healthz", [], b"", ["x-request-id: forged"], together)

    assert reply.status == 200
    assert reply.headers["x-request-id"] != "forged"


def test_the_next_request_has_none_either(served: ServerWithKeys) -> None:
    first = b"GET /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    second = b"\r\n".join([bearer(served.bearer).encode(), b"", head("GET", "/v1/me")])

    one, two = exchange(served.port, first + second)

    assert (one.status, two.status) == (200, 401)


def test_failures_are_not_counted_against_whom_it_names(served: ServerWithKeys) -> None:
    """Twenty a minute and a worker: a client that names another address in each trailer is limited all the same."""
    wrong = [bearer("lks_00000000000000000000000000000000000000000003GTfko")]
    codes = {
        send(served, "GET", "/v1/me", wrong, b"", [f"x-forwarded-for: 203.0.113.{number}"], True).code
        for number in range(200)
    }

    assert codes == {"unauthenticated", "too_many_failures"}
