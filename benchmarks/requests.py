"""The requests of the jobs, as bytes."""

import functools
import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.load import encode_request
from benchmarks.rows import Database, HeldKey
from latchkey.service.authentication.wire.credentials import new_access_key, new_secret
from latchkey.service.authentication.wire.message_signature import sign_message

MakeRequests = Callable[[Database, int, int], Sequence[bytes]]
"""Makes requests of the database, the server's port, and how many are wanted, if none may be sent twice."""

PREFIX = "lk"


def host(port: int) -> dict[str, str]:
    """Return the Host header."""
    return {"host": f"127.0.0.1:{port}"}


def bearer(port: int, key: HeldKey) -> dict[str, str]:
    """Return the headers of a call with a bearer key."""
    return host(port) | {"authorization": f"Bearer {key.secret}"}


def reads(database: Database, port: int, _count: int) -> Sequence[bytes]:
    """Return reads of the caller, one for each bearer key."""
    return [encode_request("GET", "/v1/me", bearer(port, key)) for key in database.bearer]


def gated(database: Database, port: int, _count: int) -> Sequence[bytes]:
    """Return questions of a proxy about GET requests, one for each bearer key."""
    described = {
        "x-forwarded-method": "GET",
        "x-forwarded-uri": "/orders/7?page=2",
        "x-forwarded-host": "api.example.com",
        "x-forwarded-proto": "https",
        "x-forwarded-for": "192.0.2.7",
    }
    return [encode_request("GET", "/v1/gate", bearer(port, key) | described) for key in database.bearer]


def verifications(database: Database, port: int, _count: int) -> Sequence[bytes]:
    """Return verifications of each bearer key, which the next one asks for."""
    asking = database.bearer[1:] + database.bearer[:1]
    bodies = [json.dumps({"credential": key.secret, "scopes": ["users:read"]}) for key in database.bearer]
    return [
        encode_request("POST", "/v1/keys/verify", bearer(port, key), body.encode())
        for key, body in zip(asking, bodies, strict=True)
    ]


def lists(limit: int) -> MakeRequests:
    """Return requests for pages of users."""

    def make(database: Database, port: int, _count: int) -> Sequence[bytes]:
        target = f"/v1/users?limit={limit}"
        return [encode_request("GET", target, bearer(port, key)) for key in database.bearer]

    return make


def articles(prefix: str = "", *, public: bool, page: bool) -> MakeRequests:
    """Return requests for articles, or for pages of them, with a key unless they are public."""

    def make(database: Database, port: int, _count: int) -> Sequence[bytes]:
        place = f"{prefix}/public/articles" if public else f"{prefix}/articles"
        made = []
        for number, key in enumerate(database.bearer):
            article = database.articles - number * (database.articles // 2 // len(database.bearer))
            target = f"{place}?before={article}" if page else f"{place}/article-{article}"
            made.append(encode_request("GET", target, host(port) if public else bearer(port, key)))
        return made

    return make


def creates(database: Database, port: int, count: int) -> Sequence[bytes]:
    """Return requests that create users with new emails."""
    return list(itertools.islice(_endless_creates(database, port), count))


def _endless_creates(database: Database, port: int) -> Iterator[bytes]:
    run = secrets.token_hex(6)
    for number, key in enumerate(itertools.cycle(database.bearer)):
        body = json.dumps({"email": f"{run}-{number}@example.com", "name": "Made by a benchmark"})
        yield encode_request("POST", "/v1/users", bearer(port, key), body.encode())


def signed_reads(database: Database, port: int, count: int) -> Sequence[bytes]:
    """Return reads of the caller with signed messages (RFC 9421), each with a new nonce."""
    run, now, named = secrets.token_hex(8), time.time(), host(port)
    made = []
    for number, key in zip(range(count), itertools.cycle(database.signed), strict=False):
        signature = sign_message(
            key.secret,
            key.access_key,
            now,
            method="GET",
            scheme="http",
            authority=named["host"],
            raw_path="/v1/me",
            nonce=f"{run}{number:08}",
        )
        made.append(encode_request("GET", "/v1/me", named | signature))
    return made


def mixture(database: Database, port: int, count: int) -> Sequence[bytes]:
    """Return a mixture: of ten requests six read, two create, one has an unknown key, and one an unknown path."""
    read = itertools.cycle(reads(database, port, 0))
    create = _endless_creates(database, port)
    missing = itertools.cycle(
        encode_request("GET", "/v1/users/9000000000000000000", bearer(port, key)) for key in database.bearer
    )
    take = [
        functools.partial(next, source)
        for source in (read, read, read, create, read, missing, read, read, create)
    ]
    made: list[bytes] = []
    while len(made) < count:
        nobody = HeldKey(new_access_key(PREFIX), new_secret(PREFIX))
        made += [one() for one in take]
        made.append(encode_request("GET", "/v1/me", bearer(port, nobody)))
    return made
