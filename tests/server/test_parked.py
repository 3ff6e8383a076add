"""A call with a late body is decided by the state of its key and owner when the body is complete."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from latchkey.service.authentication.replay import SKEW_S
from latchkey.service.authentication.wire import message_signature, query_signature
from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from tests.server.raw_requests import (
    SERVERS,
    Reply,
    ServerWithKeys,
    database_of,
    read_all,
    serve_with_keys,
    split_responses,
)

WINDOW_S = 6
BODY = json.dumps({"name": "new", "mode": "bearer", "scopes": []}).encode()
PATH = "/v1/me/keys"
OPERATOR = "users:read,users:write,keys:read,keys:write,me.keys:read,me.keys:write"

LONG = os.environ.get("LATCHKEY_TEST_BOUNDS") == "long"  # `make test-bounds`


@pytest.fixture(scope="module", params=SERVERS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerWithKeys]:
    kind, workers = request.param
    folder: Path = tmp_path_factory.mktemp("parked")
    url = database_of(kind, request, folder)
    environ = {"LATCHKEY_CLOCK_WINDOW_S": str(WINDOW_S), "LATCHKEY_KEY_CACHE_TTL_S": "60"}
    with serve_with_keys(folder, url, workers=workers, environ=environ, scopes=OPERATOR) as found:
        yield found


class Caller(msgspec.Struct, frozen=True):
    """An owner with one key."""

    served: Any
    user_id: int
    access_key: str
    secret: str
    mode: str

    def head(self, form: str, *headers: str, nonce: str | None = None) -> bytes:
        """Return the head of a `POST /v1/me/keys`, signed now in the form of the key."""
        target, extra, now = PATH, [], time.time()
        if form == "bearer":
            extra = [f"authorization: Bearer {self.secret}"]
        elif form == "query":
            query, proof = query_signature.sign_query(
                Secret(self.secret), "", AccessKey(self.access_key), now,
                method="POST", path=PATH, body=BODY, nonce=nonce,
            )  # fmt: skip
            target, extra = f"{PATH}?{query}", [f"secret: {proof}"]
        else:
            signed = message_signature.sign_message(
                Secret(self.secret),
                AccessKey(self.access_key),
                now,
                method="POST",
                scheme="http",
                authority=f"127.0.0.1:{self.served.port}",
                raw_path=PATH,
                query_string="",
                nonce=f"nonce-{time.time_ns()}",
                body=BODY,
                content_type="application/json",
            )
            extra = [
                f"{name}: {value}"
                for name, value in signed.items()
                if name.lower() not in {"host", "content-type"}
            ]
        lines = [
            f"POST {target} HTTP/1.1",
            f"host: 127.0.0.1:{self.served.port}",
            "content-type: application/json",
            f"content-length: {len(BODY)}",
            "connection: close",
            *extra,
            *headers,
            "",
            "",
        ]
        return "\r\n".join(lines).encode()


def ask(served: ServerWithKeys, method: str, path: str, body: Any = None) -> Any:
    """Make one call with the operator's key."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    headers = {"authorization": f"Bearer {served.bearer}"}
    if body is not None:
        headers["content-type"] = "application/json"
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status < 300, content
    return json.loads(content) if content else None


def make_caller(served: ServerWithKeys, form: str, **fields: Any) -> Caller:
    mode = "bearer" if form == "bearer" else "signed"
    user = ask(served, "POST", "/v1/users", {"email": f"{time.time_ns()}@example.com", "name": "P"})
    key = ask(
        served,
        "POST",
        "/v1/keys",
        {"user_id": user["id"], "name": "k", "mode": mode, "scopes": ["me.keys:write"], **fields},
    )
    return Caller(served, user["id"], key["access_key"], key["secret"], mode)


def keys_of(caller: Caller) -> list[str]:
    page = ask(caller.served, "GET", f"/v1/keys?user_id={caller.user_id}&limit=200")
    return [key["access_key"] for key in page["data"]]


class Parked:
    """A call of which the head and half of the body were sent."""

    def __init__(self, served: ServerWithKeys, head: bytes) -> None:
        self.client = socket.create_connection(("127.0.0.1", served.port), 30)
        self.client.sendall(head + BODY[:10])

    def finish(self) -> Reply:
        """Send the rest and return the answer."""
        with self.client:
            self.client.sendall(BODY[10:])
            (reply,) = split_responses(read_all(self.client))
        return reply


def patch_key(**fields: Any) -> Callable[[Caller], None]:
    return lambda caller: ask(caller.served, "PATCH", f"/v1/keys/{caller.access_key}", fields)


def expire(caller: Caller) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    ask(caller.served, "PATCH", f"/v1/keys/{caller.access_key}", {"expires_at": soon.isoformat()})
    time.sleep(1.2)


CHANGES = {
    "revoked": (lambda one: ask(one.served, "DELETE", f"/v1/keys/{one.access_key}"), 401, "key_revoked"),
    "scopes": (patch_key(scopes=[]), 403, "scope_missing"),
    "networks": (patch_key(allowed_networks=["198.51.100.0/24"]), 403, "network_not_allowed"),
    "expired": (expire, 401, "key_expired"),
    "secret": (
        lambda one: ask(one.served, "POST", f"/v1/keys/{one.access_key}/rotate", {"grace_s": 0}),
        401,
        "unauthenticated",
    ),
    "owner blocked": (
        lambda one: ask(one.served, "PATCH", f"/v1/users/{one.user_id}", {"status": "blocked"}),
        401,
        "owner_inactive",
    ),
    "owner deleted": (
        lambda one: ask(one.served, "DELETE", f"/v1/users/{one.user_id}"),
        401,
        "key_revoked",
    ),
}


@pytest.mark.parametrize("form", ["bearer", "query", "message"])
@pytest.mark.parametrize(("change", "status", "code"), CHANGES.values(), ids=CHANGES)
def test_a_key_that_is_narrowed_meanwhile_makes_no_key(
    served: ServerWithKeys, form: str, change: Callable[..., Any], status: int, code: str
) -> None:
    caller = make_caller(served, form)
    parked = Parked(served, caller.head(form))
    time.sleep(0.1)  # the head is there

    change(caller)
    reply = parked.finish()

    assert (reply.status, reply.code) == (status, code)
    assert keys_of(caller) == [caller.access_key]


@pytest.mark.parametrize("form", ["bearer", "query", "message"])
def test_a_parked_call_of_a_good_key_is_taken(served: ServerWithKeys, form: str) -> None:
    caller = make_caller(served, form)
    parked = Parked(served, caller.head(form))
    time.sleep(0.5)

    assert parked.finish().status == 201
    assert len(keys_of(caller)) == 2


@pytest.mark.parametrize("form", ["bearer", "message"])
def test_calls_that_are_parked_together_are_charged_one_by_one(served: ServerWithKeys, form: str) -> None:
    limit = {"name": "burst", "limit": 4, "window_s": 60}
    caller = make_caller(served, form, limits=[limit])
    parked = [Parked(served, caller.head(form)) for _ in range(12)]

    replies = [one.finish() for one in parked]

    assert sorted(one.status for one in replies) == [201] * 4 + [429] * 8
    assert len(keys_of(caller)) == 5


@pytest.mark.parametrize("form", ["bearer", "query", "message"])
def test_limits_that_a_key_gets_meanwhile_hold(served: ServerWithKeys, form: str) -> None:
    caller = make_caller(served, form)
    # Without a nonce the same query has the same signature within a second, and the second call would be a replay.
    parked = [Parked(served, caller.head(form, nonce=f"nonce-of-call-{n}-00")) for n in range(2)]
    time.sleep(0.1)

    patch_key(limits=[{"name": "burst", "limit": 1, "window_s": 60}])(caller)
    replies = [one.finish() for one in parked]

    assert sorted(one.status for one in replies) == [201, 429]
    assert len(keys_of(caller)) == 2


@pytest.mark.parametrize("form", ["query", "message"] if LONG else ["message"])
def test_a_copy_that_waits_until_the_nonce_is_purged_is_refused(served: ServerWithKeys, form: str) -> None:
    caller = make_caller(served, form)
    head = caller.head(form)
    copy = Parked(served, head)
    assert Parked(served, head).finish().status == 201

    time.sleep(WINDOW_S + SKEW_S + 1.5)
    purged = subprocess.run(
        [sys.executable, "-m", "latchkey", "purge"],
        cwd=served.served.folder, env=served.served.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    reply = copy.finish()

    assert re.search(r"nonces\D+[1-9]", purged.stdout), purged.stdout
    assert (reply.status, reply.code) == (401, "unauthenticated")
    assert len(keys_of(caller)) == 2


@pytest.mark.parametrize("form", ["query", "message"])
def test_a_signature_that_ends_while_the_body_is_awaited_is_refused(
    served: ServerWithKeys, form: str
) -> None:
    caller = make_caller(served, form)
    parked = Parked(served, caller.head(form))

    time.sleep(WINDOW_S + 1.5)
    reply = parked.finish()

    assert (reply.status, reply.code) == (401, "unauthenticated")
    assert keys_of(caller) == [caller.access_key]


@pytest.mark.parametrize("form", ["query", "message"])
def test_one_of_two_parked_copies_is_accepted(served: ServerWithKeys, form: str) -> None:
    caller = make_caller(served, form)
    head = caller.head(form)
    first, second = Parked(served, head), Parked(served, head)

    replies = [first.finish(), second.finish()]

    assert sorted((one.status, one.code) for one in replies) == [(201, None), (401, "replayed")]
    assert len(keys_of(caller)) == 2


def test_a_call_without_a_usable_credential_is_refused_before_its_body(served: ServerWithKeys) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 10) as client:
        client.sendall(b"POST /v1/me/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n")
        client.settimeout(5)
        data = client.recv(65536)

    assert data.startswith(b"HTTP/1.1 401 ")
