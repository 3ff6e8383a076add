"""A check before a run: every peer must give Latchkey's answers, or its figures would be meaningless."""

import http.client
import json
import re
import secrets
import socket
from typing import Any

import msgspec

from benchmarks.rows import HeldKey
from benchmarks.servers import Server
from latchkey.service.authentication.wire.credentials import new_secret

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z")
TIMEOUT_S = 20


class UnlikeError(AssertionError):
    """A peer gives a different answer than Latchkey."""


class PeerAnswer(msgspec.Struct, frozen=True):
    """The answer to a request."""

    status: int
    body: Any


def ask(server: Server, key: HeldKey, method: str, target: str, body: Any = None) -> PeerAnswer:
    """Send one request, and return the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    headers = {"authorization": f"Bearer {key.secret}"}
    try:
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["content-type"] = "application/json"
        connection.request(method, target, content, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    found = json.loads(text) if answer.status < http.HTTPStatus.BAD_REQUEST else None
    return PeerAnswer(answer.status, found)


def require_alike(latchkey: Server, peer: Server) -> None:
    """Compare a read, a refusal and a create.

    Raises:
        UnlikeError: one of them differs; the message contains the difference.
    """
    name, database = peer.variant.module, peer.database
    key = database.bearer[0]
    require_same_read(latchkey, peer, key)
    for wrong in (HeldKey(key.access_key, new_secret("lk")), database.signed[0]):
        if (found := ask(peer, wrong, "GET", "/v1/me")).status != http.HTTPStatus.UNAUTHORIZED:
            raise UnlikeError(f"{name} answers {found.status} to a key that it must refuse")
    require_same_create(latchkey, peer, key)


def require_same_read(latchkey: Server, peer: Server, key: HeldKey) -> None:
    """Compare the answers to a read, with sorted keys and exact times.

    The last use of the key is ignored: Latchkey records it every few seconds, and a cache returns it late.
    """
    expected, found = (ask(server, key, "GET", "/v1/me") for server in (latchkey, peer))
    for answer in (expected, found):
        if answer.body is not None and MOMENT.fullmatch(str(answer.body["key"]["last_used_at"])):
            answer.body["key"]["last_used_at"] = None
    if found != expected:
        raise UnlikeError(f"{peer.variant.module} reads {_difference(expected, found)}")


def require_same_answer(server: Server, request: bytes, expected: Any) -> Any:
    """Compare the answer to a raw request with that of another contestant; None compares with nothing.

    Raises:
        UnlikeError: it is not a 200, or differs.
    """
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        text = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise UnlikeError(f"{server.variant.module} answers {answer.status}")
    found = json.loads(text)
    if expected is not None and found != expected:
        raise UnlikeError(f"{server.variant.module} answers {text[:200]!r}, unlike another contestant")
    return found


def require_same_create(latchkey: Server, peer: Server, key: HeldKey) -> None:
    """Compare a created user with one that Latchkey creates, without the fields that must differ."""
    shapes = []
    for server in (latchkey, peer):
        body = {"email": f"{secrets.token_hex(8)}@example.com", "name": "Likeness"}
        found = ask(server, key, "POST", "/v1/users", body)
        user = found.body if isinstance(found.body, dict) else {}
        shapes.append(
            PeerAnswer(
                found.status,
                {
                    **user,
                    "id": type(user.get("id")).__name__,
                    "email": user.get("email") == body["email"],
                    **{at: bool(MOMENT.fullmatch(str(user.get(at)))) for at in ("created_at", "updated_at")},
                },
            )
        )
    if shapes[0] != shapes[1]:
        raise UnlikeError(f"{peer.variant.module} creates {_difference(*shapes)}")


def _difference(expected: PeerAnswer, found: PeerAnswer) -> str:
    if expected.status != found.status or not isinstance(found.body, dict):
        return f"{found.status} instead of {expected.status}"
    lines = (_lines(expected.body), _lines(found.body))
    return f"{sorted(lines[1] - lines[0])} instead of {sorted(lines[0] - lines[1])}"


def _lines(body: dict[str, Any]) -> set[str]:
    """Return each value with its path, one per line."""
    found = set()
    for name, value in body.items():
        if isinstance(value, dict):
            found |= {f"{name}.{line}" for line in _lines(value)}
        else:
            found.add(f"{name}: {json.dumps(value)}")
    return found
