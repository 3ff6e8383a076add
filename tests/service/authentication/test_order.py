"""The order of the checks is a security property: of two faults in one request the earlier one determines the answer.

Otherwise an unauthenticated caller could learn the state of a key, and a caller without a scope the existence of rows.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette

from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.wire import query_signature
from tests import wire
from tests.api import HeldKey, assert_problem, stored
from tests.service.authentication.signed_requests import NOW, Attempt, HeldKeys, MakeAttempt, bearer, signed

FUTURE = str(NOW + 3600)
TOO_LARGE = ("content-length", str(2 * 1024 * 1024))
BODY = b'{"name":"x"}'
SHA256 = hashlib.sha256(BODY).hexdigest()


def both(id: str, status: int, code: str, make_attempt: MakeAttempt) -> object:
    return pytest.param(status, code, make_attempt, id=id)


def covered(
    key: HeldKey, method: str, path: str, /, *, body: Any = BODY, sent: Any = None, **parameters: Any
) -> Attempt:
    """Return the signature of all required parts of a call with a body."""
    return signed(
        key,
        method,
        path,
        body=body if sent is None else sent,
        behind=f"&method={method}&path={path.replace('/', '%2F')}&content_sha256={hashlib.sha256(body).hexdigest()}",
        **parameters,
    )


ORDER = [
    both("size, two credentials", 413, "body_too_large",
         lambda c: signed(c.signer).adding(c.bearer.bearer, TOO_LARGE)),
    both("size, no credential", 413, "body_too_large", lambda _: Attempt(headers=(TOO_LARGE,))),
    both("path, no credential", 404, "not_found", lambda _: Attempt("/v1/nothing")),
    both("method, no credential", 405, "method_not_allowed", lambda _: Attempt("/v1/me", method="PUT")),
    both("which credential, shape of both", 400, "two_credentials",
         lambda c: signed(c.signer, nonce="").adding(("authorization", "Bearer typo"))),
    both("which credential, shape of one", 400, "two_credentials",
         lambda c: bearer(c.bearer).adding(c.bearer.bearer, ("secret", "x"))),
    both("which credential, lookup", 400, "two_credentials",
         lambda c: signed(c.unknown).adding(c.unknown.bearer)),
    both("shape, lookup", 401, "unauthenticated", lambda c: signed(c.unknown, nonce="")),
    both("lookup, clock window", 401, "unauthenticated", lambda c: signed(c.unknown, timestamp=FUTURE)),
    both("proof, state of the key", 401, "unauthenticated",
         lambda c: signed(c.revoked_signer, secret=c.signer.secret)),
    both("proof, expiry", 401, "unauthenticated", lambda c: signed(c.expired_signer, secret=c.signer.secret)),
    both("proof, owner", 401, "unauthenticated", lambda c: signed(c.blocked_signer, secret=c.signer.secret)),
    both("signed path, state of the key", 401, "unauthenticated",
         lambda c: signed(c.revoked_signer, behind="&path=%2F")),
    both("signed method, owner", 401, "unauthenticated", lambda c: signed(c.blocked_signer, behind="&method=PUT")),
    both("clock window, state of the key", 401, "unauthenticated",
         lambda c: signed(c.revoked_signer, timestamp=FUTURE)),
    both("clock window, expiry", 401, "unauthenticated", lambda c: signed(c.expired_signer, timestamp=FUTURE)),
    both("clock window, owner", 401, "unauthenticated", lambda c: signed(c.blocked_signer, timestamp=FUTURE)),
    both("mode, state of the key", 401, "unauthenticated", lambda c: bearer(c.revoked_signer)),
    both("revoked, expired", 401, "key_revoked", lambda c: bearer(c.revoked)),
    both("state of the key, coverage", 401, "key_revoked",
         lambda c: signed(c.revoked_signer, "DELETE", f"/v1/keys/{c.bearer.access_key}")),
    both("owner, coverage", 401, "owner_inactive",
         lambda c: signed(c.blocked_signer, "DELETE", f"/v1/keys/{c.bearer.access_key}")),
    both("coverage, scope", 403, "coverage_required",
         lambda c: signed(c.unscoped_signer, "DELETE", f"/v1/keys/{c.bearer.access_key}")),
    both("state of the key, scope", 401, "key_expired", lambda c: signed(c.expired_signer, "GET", "/v1/users")),
    both("scope, digest", 403, "scope_missing",
         lambda c: covered(c.unscoped_signer, "PATCH", f"/v1/users/{c.bearer.user_id}", sent=b"{}")),
    both("scope, row", 403, "scope_missing", lambda c: signed(c.unscoped_signer, "GET", "/v1/users/0")),
    both("scope, query", 403, "scope_missing",
         lambda c: signed(c.unscoped_signer, "GET", "/v1/users", behind="&x=1")),
    both("scope, body", 403, "scope_missing",
         lambda c: covered(c.unscoped_signer, "PATCH", f"/v1/users/{c.bearer.user_id}", body=b"{")),
    both("digest, row", 401, "digest_mismatch", lambda c: covered(c.signer, "PATCH", "/v1/users/0", sent=b"{}")),
    both("digest, query", 401, "digest_mismatch",
         lambda c: covered(c.signer, "PATCH", f"/v1/users/{c.bearer.user_id}", sent=b"{}", x="1")),
    both("digest, type of the body", 401, "digest_mismatch",
         lambda c: covered(c.signer, "PATCH", f"/v1/users/{c.bearer.user_id}", sent=b"{}")
         .adding(("content-type", "text/plain"))),
    both("undeclared size, digest", 413, "body_too_large",
         lambda c: signed(c.signer, "DELETE", "/v1/users/1", chunks=[b"x" * 65536] * 17,
                          behind=f"&method=DELETE&path=%2Fv1%2Fusers%2F1&content_sha256={SHA256}")),
    both("query, type of the body", 400, "invalid_parameter",
         lambda c: Attempt("/v1/users?x=1", (c.bearer.bearer, ("content-type", "x")), "POST", BODY)),
    both("type of the body, JSON", 415, "unsupported_media_type",
         lambda c: Attempt("/v1/users", (c.bearer.bearer, ("content-type", "x")), "POST", b"{")),
    both("JSON, shape", 400, "malformed_json",
         lambda c: Attempt("/v1/users", (c.bearer.bearer,), "POST", b'{"x":1')),
    both("shape, row", 422, "invalid_body",
         lambda c: Attempt("/v1/users/999999999", (c.bearer.bearer,), "PATCH", {"name": 5})),
]  # fmt: skip


@pytest.mark.parametrize("status, code, make_attempt", ORDER)
async def test_the_earlier_of_two_faults_is_answered(
    app: Starlette, held_keys: HeldKeys, status: int, code: str, make_attempt: MakeAttempt
) -> None:
    before = await stored(app.state.db.reader)

    answer = await make_attempt(held_keys).send(app)

    assert_problem(answer, status, code)
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize(
    "one, other",
    [
        pytest.param(lambda c: signed(c.unknown), lambda c: signed(c.signer, secret="x"), id="signed"),
        pytest.param(lambda c: bearer(c.unknown), lambda c: bearer(c.signer), id="bearer"),
        pytest.param(lambda c: signed(c.unknown), lambda c: signed(c.bearer), id="a key that does not sign"),
        pytest.param(
            lambda c: signed(c.unknown), lambda c: signed(c.rotated, secret="x"), id="a key with two secrets"
        ),
    ],
)
async def test_an_unknown_key_costs_what_a_wrong_proof_costs(
    app: Starlette,
    held_keys: HeldKeys,
    monkeypatch: pytest.MonkeyPatch,
    one: Callable[..., Any],
    other: Callable[..., Any],
) -> None:
    """The same number of queries, opened secrets and MACs, because of the dummy secret."""
    costs = []
    for make_attempt in (one, other):
        worked: list[str] = []
        for place, name in ((KeyRing, "open_secret"), (query_signature, "proves")):
            work = getattr(place, name)
            monkeypatch.setattr(place, name, lambda *a, w=work, n=name, done=worked: done.append(n) or w(*a))
        with wire.listening() as commands:
            answer = await make_attempt(held_keys).send(app)
        monkeypatch.undo()
        assert_problem(answer, 401, "unauthenticated")
        costs.append(([command.partition("WHERE")[2].partition("=")[0] for command in commands], worked))

    assert costs[0] == costs[1]
    assert len(costs[0][0]) == 1


async def test_a_proof_with_the_newest_secret_opens_no_second_one(
    app: Starlette, held_keys: HeldKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    work = KeyRing.open_secret
    monkeypatch.setattr(KeyRing, "open_secret", lambda *a: (opened.append(a), work(*a))[1])

    answer = await signed(held_keys.signer).send(app)

    assert (answer.status, len(opened)) == (200, 1)
