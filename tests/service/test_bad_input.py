"""Whatever a client sends: the right problem, never a 500, and nothing written.

One table for the requests and one for their credentials; both pass through all middleware.
"""

import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import ApiKey
from latchkey.service.logs import JsonFormatter, TextFormatter
from tests.api import HeldKey, assert_problem, call, hold_key, stored

USER = {"email": "ann@example.com", "name": "Ann"}
KEY = {"user_id": 1, "name": "n", "mode": "bearer", "scopes": []}
LIMIT_BYTES = 1024 * 1024  # the default of LATCHKEY_BODY_LIMIT_BYTES


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A refused request. In `target`, {user} and {key} are those of another owner."""

    method: str
    target: str
    status: int
    code: str
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    caller: str = "operator"
    chunks: list[bytes] | None = None
    pointer: str | None = None
    allow: str | None = None


def bad(id: str, request: str, status: int, code: str, **more: Any) -> Any:
    """Return one line of the table; `request` is the method and the target."""
    method, _, target = request.partition(" ")
    return pytest.param(Case(method=method, target=target, status=status, code=code, **more), id=id)


def raw(id: str, body: bytes, status: int = 400, code: str = "malformed_json", **more: Any) -> Any:
    """Return a case with a raw body."""
    return bad(id, "POST /v1/users", status, code, body=body, **more)


def shape(id: str, body: Any, pointer: str, request: str = "POST /v1/users") -> Any:
    """Return a case with JSON of the wrong shape, and the place of the fault."""
    return bad(id, request, 422, "invalid_body", body=body, pointer=pointer)


def query(id: str, target: str, code: str = "invalid_parameter", method: str = "GET") -> Any:
    """Return a case with a query."""
    return bad(id, f"{method} {target}", 400, code)


MALFORMED = [
    raw("an empty body", b""),
    raw("blanks only", b" \n\t"),
    raw("a byte order mark", b"\xef\xbb\xbf" + json.dumps(USER).encode()),
    raw("UTF-16", json.dumps(USER).encode("utf-16")),
    raw("broken UTF-8", b'{"email":"a@b","name":"\xff"}'),
    raw("broken UTF-8 in a name of a field", b'{"email":"a@b","\xff":"x"}'),
    raw("a surrogate in UTF-8", b'{"email":"a@b","name":"\xed\xa0\x80"}'),
    raw("a lone high surrogate", b'{"email":"a@b","name":"\\ud800"}'),
    raw("a lone low surrogate", b'{"email":"a@b","name":"\\udc00 and more text"}'),
    raw("cut off in an object", b'{"email":"a@b","name":"x"'),
    raw("cut off in a text", b'{"email":"a@b","na'),
    raw("cut off after a wrong type", b'{"email":5,"name":"x"'),
    raw("cut off in an array", b"[1,2"),
    raw("garbage behind it", json.dumps(USER).encode() + b"x"),
    raw("garbage behind a wrong shape", b"{}x"),
    raw("two documents", json.dumps(USER).encode() * 2),
    raw("NaN", b'{"email":"a@b","name":NaN}'),
    raw("-Infinity behind a wrong type", b'{"email":1,"name":-Infinity}'),
    raw("single quotes", b"{'email':'a@b','name':'x'}"),
    raw("a comma too many", b'{"email":"a@b","name":"x",}'),
    raw("a comment", b'{"email":"a@b","name":"x"}//'),
    raw("a null byte in a text", b'{"email":"a@b","name":"\x00"}'),
    raw("a newline in a text", b'{"email":"a@b","name":"x\n"}'),
    raw("a number with a leading zero", b'{"email":"a@b","name":01}'),
    raw("a form", b"email=a%40b&name=x"),
    raw("deep arrays", b"[" * 100_000 + b"]" * 100_000),
    raw("deep arrays, cut off", b"[" * 100_000),
    raw("deep in an unknown field", b'{"x":' * 50_000 + b"1" + b"}" * 50_000),
]

SHAPES = [
    shape("null", b"null", ""),
    shape("an array", [USER], ""),
    shape("a text", "ann", ""),
    shape("a number", 7, ""),
    shape("true", True, ""),
    shape("no field", {}, "/email"),
    shape("a field missing", {"email": "a@b"}, "/name"),
    shape("an unknown field", {**USER, "admin": True}, "/admin"),
    shape("an unknown field to be escaped", {**USER, "a/b~c": 1}, "/a~1b~0c"),
    shape("an unknown field with a backtick", {**USER, "a`b": 1}, "/a`b"),
    shape("an unknown field like an error's text", {**USER, "x - at `$.email`": 1}, "/x - at `$.email`"),
    shape("an unknown field with points", {**USER, "a.b[0]": 1}, "/a.b[0]"),
    shape("an unknown field that is long", {**USER, "x" * 100_000: 1}, ""),
    shape("an unknown field of 300 characters", {**USER, "x" * 299: 1}, "/" + "x" * 299),
    shape("a field that the service sets", {**USER, "id": 1}, "/id"),
    shape("null for a text", {**USER, "name": None}, "/name"),
    shape("a number for a text", {**USER, "name": 5}, "/name"),
    shape("an object for a text", {**USER, "name": {}}, "/name"),
    shape("an empty name", {**USER, "name": ""}, "/name"),
    shape("a name too long", {**USER, "name": "x" * 201}, "/name"),
    shape("a name with U+0000", {**USER, "name": "a\0b"}, "/name"),
    shape("a name with U+0085", {**USER, "name": "a\x85b"}, "/name"),
    shape("a name with a newline at its end", {**USER, "name": "Ann\n"}, "/name"),
    shape("a name of one newline", {**USER, "name": "\n"}, "/name"),
    shape("a name with U+007F", {**USER, "name": "\x7f"}, "/name"),
    shape("an empty email", {**USER, "email": ""}, "/email"),
    shape("an email without @", {**USER, "email": "ann"}, "/email"),
    shape("an email with two @", {**USER, "email": "a@b@c"}, "/email"),
    shape("an email with nothing before @", {**USER, "email": "@b"}, "/email"),
    shape("an email with nothing behind @", {**USER, "email": "a@"}, "/email"),
    shape("an email with a space", {**USER, "email": "a b@c"}, "/email"),
    shape("an email with a space of another kind", {**USER, "email": "a\u2003@c"}, "/email"),
    shape("an email with a newline at its end", {**USER, "email": "a@b\n"}, "/email"),
    shape("an email with U+0000", {**USER, "email": "a\0@b"}, "/email"),
    shape("an email with U+0085", {**USER, "email": "a@b\x85"}, "/email"),
    shape("an email too long", {**USER, "email": "a" * 253 + "@b"}, "/email"),
    shape("a change to null", {"email": None}, "/email", "PATCH /v1/users/{user}"),
    shape("a change of what is fixed", {"created_at": "2999-01-01T00:00:00Z"}, "/created_at",
          "PATCH /v1/users/{user}"),
    shape("a change to deleted", {"status": "deleted"}, "/status", "PATCH /v1/users/{user}"),
    shape("a change to a status unheard of", {"status": "Active"}, "/status", "PATCH /v1/users/{user}"),
    shape("a change that is an array", [], "", "PATCH /v1/users/{user}"),
    shape("a key's id of 0", {**KEY, "user_id": 0}, "/user_id", "POST /v1/keys"),
    shape("a key's id of -1", {**KEY, "user_id": -1}, "/user_id", "POST /v1/keys"),
    shape("a key's id of 2^63", {**KEY, "user_id": 2**63}, "/user_id", "POST /v1/keys"),
    shape("a key's id of 10^30", {**KEY, "user_id": 10**30}, "/user_id", "POST /v1/keys"),
    shape("a key's id of many digits", b'{"user_id":' + b"9" * 9000 + b"}", "/user_id", "POST /v1/keys"),
    shape("a key's id of 1e400", b'{"user_id":1e400}', "/user_id", "POST /v1/keys"),
    shape("a key's id of 1.5", {**KEY, "user_id": 1.5}, "/user_id", "POST /v1/keys"),
    shape("a key's id as a text", {**KEY, "user_id": "1"}, "/user_id", "POST /v1/keys"),
    shape("a key's id of true", {**KEY, "user_id": True}, "/user_id", "POST /v1/keys"),
    shape("a mode unheard of", {**KEY, "mode": "both"}, "/mode", "POST /v1/keys"),
    shape("scopes as a text", {**KEY, "scopes": "users:read"}, "/scopes", "POST /v1/keys"),
    shape("scopes of null", {**KEY, "scopes": None}, "/scopes", "POST /v1/keys"),
    shape("a scope of null", {**KEY, "scopes": ["users:read", None]}, "/scopes/1", "POST /v1/keys"),
    shape("a scope too long", {**KEY, "scopes": ["x" * 101]}, "/scopes/0", "POST /v1/keys"),
    shape("101 scopes", {**KEY, "scopes": [f"a:b{n}" for n in range(101)]}, "/scopes", "POST /v1/keys"),
    shape("a key with a secret of one's own", {**KEY, "secret": "x"}, "/secret", "POST /v1/keys"),
    shape("a key revoked by a change", {"status": "revoked"}, "/status", "PATCH /v1/keys/{key}"),
    shape("a key's mode changed", {"mode": "bearer"}, "/mode", "PATCH /v1/keys/{key}"),
    shape("a key's owner changed", {"user_id": 1}, "/user_id", "PATCH /v1/keys/{key}"),
    shape("a key's name of null", {"name": None}, "/name", "PATCH /v1/keys/{key}"),
]  # fmt: skip

TYPES = [
    bad(f"content type: {kind}", "POST /v1/users", 415, "unsupported_media_type", body=USER, headers=headers)
    for kind, headers in {
        "a form": (("content-type", "application/x-www-form-urlencoded"),),
        "text": (("content-type", "text/plain"),),
        "none": (("content-type", ""),),
        "JSON of another kind": (("content-type", "application/problem+json"),),
        "JSON in another encoding": (("content-type", "application/json; charset=latin-1"),),
        "JSON with a parameter unheard of": (("content-type", "application/json; version=2"),),
        "two": (("content-type", "application/json"), ("content-type", "application/json")),
        "a list": (("content-type", "application/json, text/plain"),),
    }.items()
]

QUERIES = [
    query("an unknown parameter", "/v1/users?limits=5"),
    query("a parameter in another letter case", "/v1/users?Limit=5"),
    query("a parameter where none is taken", "/v1/me?x=1"),
    query("a parameter on a path that writes", "/v1/users?dry_run=true", method="POST"),
    query("a parameter on a delete", "/v1/users/{user}?force=1", method="DELETE"),
    query("an unknown parameter on a delete", "/v1/users/{user}?cascade=true", method="DELETE"),
    query("a force of True", "/v1/users/{user}?force=True", method="DELETE"),
    query("a force that is blank", "/v1/users/{user}?force=", method="DELETE"),
    query("a force twice", "/v1/users/{user}?force=true&force=false", method="DELETE"),
    query("a force on a change of keys", "/v1/keys/{key}?force=true", method="DELETE"),
    query("a parameter without a name", "/v1/users?=5"),
    query("a name without a value", "/v1/users?limit"),
    query("a name that is not UTF-8", "/v1/users?%ff=1"),
    query("a name with a newline", "/v1/users?a%0Ab=1"),
    query("twice the same", "/v1/users?limit=5&limit=5"),
    query("twice the same, one escaped", "/v1/users?limit=5&%6Cimit=6"),
    query("twice the same email", "/v1/users?email=a&email=b"),
    query("a limit that is blank", "/v1/users?limit="),
    query("a limit of 0", "/v1/users?limit=0"),
    query("a limit of -1", "/v1/users?limit=-1"),
    query("a limit of 201", "/v1/users?limit=201"),
    query("a limit of many digits", "/v1/users?limit=" + "9" * 6000),
    query("a limit of full-width digits", "/v1/users?limit=%EF%BC%95"),
    query("a limit of +5", "/v1/users?limit=%2B5"),
    query("a limit with a blank", "/v1/users?limit=+5"),
    query("a limit with a newline", "/v1/users?limit=5%0A"),
    query("a limit of 1_0", "/v1/users?limit=1_0"),
    query("a limit of 05", "/v1/users?limit=05"),
    query("a limit of 5.0", "/v1/users?limit=5.0"),
    query("a limit of 1e1", "/v1/users?limit=1e1"),
    query("a limit of -0", "/v1/users?limit=-0"),
    query("a limit of true", "/v1/users?limit=true"),
    query("a limit of null", "/v1/users?limit=null"),
    query("a limit that is not UTF-8", "/v1/users?limit=%ff"),
    query("an email that is not UTF-8", "/v1/users?email=%ff"),
    query("an email that is not ASCII", "/v1/users?email=\xff"),
    query("an email of a surrogate", "/v1/users?email=%ed%a0%80"),
    query("a status unheard of", "/v1/users?status=ACTIVE"),
    query("a status that is blank", "/v1/users?status="),
    query("a status of null", "/v1/users?status=null"),
    query("a status of the other list", "/v1/keys?status=blocked"),
    query("an owner of 0", "/v1/keys?user_id=0"),
    query("an owner of 2^63", f"/v1/keys?user_id={2**63}"),
    query("an owner of null", "/v1/keys?user_id=null"),
    query("an owner that is blank", "/v1/keys?user_id="),
    query("an end of seconds since 1970", "/v1/keys?expires_before=32503680000"),
    query("an end past the last year in seconds", "/v1/keys?expires_before=253402300800"),
    query("an end of keys of mine past the last year in seconds", "/v1/me/keys?expires_before=253402300800"),
    query("an end of infinitely many seconds", "/v1/keys?expires_before=inf"),
    query("an end of NaN", "/v1/keys?expires_before=nan"),
    query("an end without an offset", "/v1/keys?expires_before=2999-01-01T00:00:00"),
    query("an end whose plus is a blank", "/v1/keys?expires_before=2999-01-01T00:00:00+01:00"),
    query("an end that is a date", "/v1/keys?expires_before=2999-01-01"),
    query("an end that is blank", "/v1/keys?expires_before="),
    query("an end of null", "/v1/keys?expires_before=null"),
    query("an end past the last year in UTC", "/v1/keys?expires_before=9999-12-31T23:59:59-14:00"),
    query("an end before the first year in UTC", "/v1/keys?expires_before=0001-01-01T00:00:00%2B14:00"),
    query("an end of keys of mine in seconds", "/v1/me/keys?expires_before=1"),
    query("an owner of keys of mine", "/v1/me/keys?user_id=1"),
    query("a reserved name beside a bearer", "/v1/users?timestamp=1700000000"),
    query("another reserved name beside a bearer", "/v1/users?method=GET"),
    query("a cursor that is blank", "/v1/users?cursor=", "invalid_cursor"),
    query("a cursor of null", "/v1/users?cursor=null", "invalid_cursor"),
    query("a cursor of a number", "/v1/users?cursor=1", "invalid_cursor"),
    query("a cursor of a long text", "/v1/users?cursor=" + "A" * 7000, "invalid_cursor"),
    query("a cursor with padding", "/v1/users?cursor=AAAA%3D%3D", "invalid_cursor"),
    query("a cursor that is not ASCII", "/v1/users?cursor=%C3%A9", "invalid_cursor"),
    query("a cursor on the other list", "/v1/keys?cursor=AAAA", "invalid_cursor"),
]

DECLARED = (("content-length", str(LIMIT_BYTES + 1)),)
PLACES = [
    bad("an unknown path", "GET /v1/nothing", 404, "not_found"),
    bad("an unknown path, posted to", "POST /nothing", 404, "not_found", body=USER),
    bad("a slash at the end", "GET /v1/me/", 404, "not_found"),
    bad("an escaped slash at the end", "GET /v1/me%2F", 404, "not_found"),
    bad("a newline at the end", "GET /v1/me%0A", 404, "not_found"),
    bad("a newline behind the root", "GET /%0A", 404, "not_found"),
    bad("two slashes", "GET //v1/me", 404, "not_found"),
    bad("points", "GET /v1/x/../me", 404, "not_found"),
    bad("another letter case", "GET /V1/me", 404, "not_found"),
    bad("a null in the path", "GET /v1/me%00", 404, "not_found"),
    bad("a problem unheard of", "GET /problems/nothing", 404, "not_found"),
    bad("an unknown path without a credential", "GET /nothing", 404, "not_found", caller="nobody"),
    bad("an unknown path with two credentials", "GET /nothing?key=x", 404, "not_found"),
    bad("a wrong method", "PUT /v1/users", 405, "method_not_allowed", allow="GET, HEAD, POST"),
    bad("a wrong method on one row", "POST /v1/users/{user}", 405, "method_not_allowed",
        allow="DELETE, GET, HEAD, PATCH"),
    bad("a wrong method on a key", "PUT /v1/keys/{key}", 405, "method_not_allowed",
        allow="DELETE, GET, HEAD, PATCH"),
    bad("a wrong method on a public path", "POST /healthz", 405, "method_not_allowed", allow="GET, HEAD"),
    bad("OPTIONS", "OPTIONS /v1/users", 405, "method_not_allowed", allow="GET, HEAD, POST"),
    bad("TRACE", "TRACE /v1/me", 405, "method_not_allowed", allow="GET, HEAD"),
    bad("a method unheard of", "FOO /v1/me", 405, "method_not_allowed", allow="GET, HEAD"),
    bad("a method in lower case", "get /v1/me", 405, "method_not_allowed", allow="GET, HEAD"),
    bad("a wrong method without a credential", "PUT /v1/me", 405, "method_not_allowed", allow="GET, HEAD",
        caller="nobody"),
    bad("a body declared too large", "POST /v1/users", 413, "body_too_large", body=USER, headers=DECLARED),
    bad("a length with leading zeros", "DELETE /v1/users/{user}", 413, "body_too_large",
        headers=(("content-length", "0" * 30 + str(LIMIT_BYTES + 1)),)),
    bad("a length of many digits", "POST /v1/users", 413, "body_too_large", body=USER,
        headers=(("content-length", "9" * 5000),)),
    bad("a body declared too large where none is read", "DELETE /v1/users/{user}", 413, "body_too_large",
        headers=DECLARED),
    bad("a body declared too large on a public path", "GET /healthz", 413, "body_too_large", headers=DECLARED),
    bad("a body declared too large without a credential", "POST /v1/users", 413, "body_too_large",
        headers=DECLARED, caller="nobody"),
    bad("an undeclared body too large", "POST /v1/users", 413, "body_too_large",
        chunks=[b'{"email":"a@b","name":"', *[b"x" * 65536] * 17, b'"}']),
    bad("an undeclared body too large, signed", "POST /v1/users", 413, "body_too_large", caller="signer",
        chunks=[b'{"email":"a@b","name":"', *[b"x" * 65536] * 17, b'"}']),
    bad("an undeclared body too large where none is read, signed", "DELETE /v1/users/{user}", 413,
        "body_too_large", caller="signer", chunks=[b"x" * 65536] * 17),
]  # fmt: skip

SCOPES = [
    bad(f"a scope missing: {request}", request, 403, "scope_missing", body=body, caller="partner")
    for request, body in [
        ("GET /v1/users", None),
        ("HEAD /v1/users", None),
        ("GET /v1/users/{user}", None),
        ("POST /v1/users", USER),
        ("PATCH /v1/users/{user}", {"name": "x"}),
        ("DELETE /v1/users/{user}", None),
        ("GET /v1/keys", None),
        ("GET /v1/keys/{key}", None),
        ("POST /v1/keys", KEY),
        ("PATCH /v1/keys/{key}", {"name": "x"}),
        ("DELETE /v1/keys/{key}", None),
    ]
]

CASES = [*MALFORMED, *SHAPES, *TYPES, *QUERIES, *PLACES, *SCOPES]


@pytest.fixture
async def callers(app: Starlette, operator: HeldKey, signer: HeldKey) -> dict[str, HeldKey | None]:
    return {
        "operator": operator,
        "signer": signer,
        "partner": await hold_key(app, email="partner@example.com", scopes=[]),
        "nobody": None,
    }


@pytest.mark.parametrize("case", CASES)
async def test_bad_input_gets_the_right_problem_and_writes_nothing(
    app: Starlette,
    callers: dict[str, HeldKey | None],
    open_transactions: Callable[[], Awaitable[int]],
    case: Case,
) -> None:
    bystander = await hold_key(app, email="bystander@example.com")
    before = await stored(app.state.db.reader)

    answer = await call(
        app,
        case.method,
        case.target.replace("{user}", str(bystander.user_id)).replace("{key}", bystander.access_key),
        key=callers[case.caller],
        body=case.body,
        headers=case.headers,
        chunks=case.chunks,
    )

    assert_problem(answer, case.status, case.code)
    assert answer.headers.get("allow") == case.allow
    if case.pointer is not None:
        assert [error["pointer"] for error in answer.json["errors"]] == [case.pointer]
    assert await stored(app.state.db.reader) == before
    assert await open_transactions() == 0
    assert list(app.state.db.scoped_session.registry.registry) == []
    assert app.state.db.checked_out() == 0


LONG = 1_000_000
QUOTED = [
    raw("a long field", b'{"email":"a@b","%s":1}' % (b"x" * LONG), 422, "invalid_body"),
    raw("a long field of quotes", rb'{"email":"a@b","%s":1}' % (rb"\"" * (LONG // 2)), 422, "invalid_body"),
    raw("a long field of tildes", b'{"email":"a@b","%s":1}' % (b"~" * LONG), 422, "invalid_body"),
    raw("a long field of nulls", rb'{"%s":1}' % (rb"\u0000" * (LONG // 6)), 422, "invalid_body"),
    raw("a long field of slashes", b'{"%s":1}' % (b"/" * LONG), 422, "invalid_body"),
    raw("a long field like an error's text", b'{"%s":1}' % (b" - at `$.email`" * (LONG // 15)), 422, "invalid_body"),
    bad("a long status", "PATCH /v1/users/{user}", 422, "invalid_body", body={"status": "x" * LONG}),
    bad("a long mode", "POST /v1/keys", 422, "invalid_body", body={**KEY, "mode": "x" * LONG}),
    bad("a long scope", "POST /v1/keys", 422, "invalid_body", body={**KEY, "scopes": ["x" * LONG]}),
    bad("a long network", "POST /v1/keys", 422, "invalid_body", body={**KEY, "allowed_networks": ["1" * LONG]}),
    bad("a long name of a limit", "POST /v1/keys", 422, "invalid_body",
        body={**KEY, "limits": [{"name": "x" * LONG, "limit": 1, "window_s": 1}]}),
    bad("a long port of a signed request", "POST /v1/signatures/explain", 422, "invalid_body",
        body={"method": "GET", "url": "http://a:" + "x" * 16_000, "headers": {}}),
    bad("a long host of a signed request", "POST /v1/signatures/explain", 422, "invalid_body",
        body={"method": "GET", "url": "http://a\u2100" + "x" * 16_000, "headers": {}}),
    query("a long parameter", "/v1/users?" + "x" * 60_000 + "=1"),
    query("a long parameter of escapes", "/v1/users?" + "%00" * 20_000 + "=1"),
    query("a long status asked for", "/v1/users?status=" + "x" * 60_000),
    query("a long limit", "/v1/users?limit=" + "5" + ".0" + "0" * 60_000),
    query("a long end", "/v1/keys?expires_before=1" + "." + "0" * 60_000),
    query("a long cursor", "/v1/users?cursor=" + "x" * 60_000, "invalid_cursor"),
    bad("a long path", "GET /" + "x" * 60_000, 404, "not_found"),
    bad("a long id", "GET /v1/users/" + "1" * 60_000, 404, "not_found"),
    bad("a long method", "X" * 60_000 + " /v1/users", 405, "method_not_allowed", allow="GET, HEAD, POST"),
    bad("a long content type", "POST /v1/users", 415, "unsupported_media_type", body=USER,
        headers=(("content-type", "x" * 60_000),)),
    bad("a long Idempotency-Key", "POST /v1/users", 400, "invalid_idempotency_key", body=USER,
        headers=(("idempotency-key", "x" * 60_000),)),
    bad("a long credential", "GET /v1/me", 401, "unauthenticated", caller="nobody",
        headers=(("authorization", "Bearer " + "x" * 60_000),)),
    bad("a long signature", "GET /v1/me", 401, "unauthenticated", caller="nobody",
        headers=(("signature", "x" * 60_000), ("signature-input", "x" * 60_000))),
    bad("a long X-Request-ID", "GET /v1/nothing", 404, "not_found", headers=(("x-request-id", "x" * 60_000),)),
    bad("a long X-Forwarded-For", "GET /v1/nothing", 404, "not_found",
        headers=(("x-forwarded-for", "x" * 60_000),)),
]  # fmt: skip


@pytest.mark.parametrize("case", QUOTED)
async def test_quoted_client_text_has_a_bound(
    app: Starlette, callers: dict[str, HeldKey | None], log_lines: list[logging.LogRecord], case: Case
) -> None:
    """In the answer with its headers, and in every line of the log."""
    bystander = await hold_key(app, email="bystander@example.com")
    del log_lines[:]

    answer = await call(
        app,
        case.method,
        case.target.replace("{user}", str(bystander.user_id)),
        key=callers[case.caller],
        body=case.body,
        headers=case.headers,
    )

    assert_problem(answer, case.status, case.code)
    assert len(answer.body) + sum(map(len, answer.headers.values())) < 4096
    ours = [line for line in log_lines if line.name.startswith("latchkey")]
    formatted = [form.format(line) for line in ours for form in (TextFormatter(), JsonFormatter())]
    assert max(map(len, formatted)) < 1024


@pytest.mark.parametrize("caller", ["operator", "signer"])
async def test_a_refused_body_does_not_spoil_the_next_call(
    app: Starlette, callers: dict[str, HeldKey | None], caller: str
) -> None:
    """The same connections continue to work."""
    for _ in range(5):
        await call(app, "POST", "/v1/users", key=callers[caller], body={"email": "a@b"})

    answer = await call(app, "POST", "/v1/users", key=callers[caller], body=USER)

    assert answer.status == 201


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
    ],
)
async def test_json_in_utf_8_is_taken_however_it_is_spelt(
    app: Starlette, operator: HeldKey, kind: str
) -> None:
    answer = await call(app, "POST", "/v1/users", key=operator, body=USER, headers=[("content-type", kind)])

    assert answer.status == 201


def test_the_table_is_as_large_as_promised() -> None:
    assert len(CASES) >= 80
    assert [one for one, times in Counter(case.id for case in CASES).items() if times > 1] == []


# ---------------------------------------------------------------------- cursors


@pytest.fixture
async def cursor(app: Starlette, operator: HeldKey) -> str:
    """Return a cursor of `/v1/keys?status=active&limit=1`."""
    await hold_key(app)
    return (await call(app, "GET", "/v1/keys?status=active&limit=1", key=operator)).json["next_cursor"]


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/v1/keys?cursor={cursor}", id="without its filter"),
        pytest.param("/v1/keys?status=revoked&cursor={cursor}", id="with another value of its filter"),
        pytest.param("/v1/keys?status=active&user_id=1&cursor={cursor}", id="with a further filter"),
        pytest.param("/v1/users?status=active&cursor={cursor}", id="on another list with the same filter"),
        pytest.param("/v1/keys?status=active&cursor={cursor}A", id="with something behind it"),
        pytest.param("/v1/keys?status=active&cursor={cursor}%3D", id="with padding"),
        pytest.param("/v1/keys?status=active&cursor={cut}", id="cut off"),
        pytest.param("/v1/keys?status=active&cursor={swapped}", id="in another letter case"),
    ],
)
async def test_a_cursor_fits_one_list_with_its_filters_only(
    app: Starlette, operator: HeldKey, cursor: str, target: str
) -> None:
    target = target.format(cursor=cursor, cut=cursor[:-1], swapped=cursor.swapcase())

    assert_problem(await call(app, "GET", target, key=operator), 400, "invalid_cursor")


async def test_a_cursor_with_any_character_changed_is_refused(
    app: Starlette, operator: HeldKey, cursor: str
) -> None:
    for place, character in enumerate(cursor):
        changed = cursor[:place] + ("A" if character != "A" else "B") + cursor[place + 1 :]

        answer = await call(app, "GET", f"/v1/keys?status=active&cursor={changed}", key=operator)

        assert_problem(answer, 400, "invalid_cursor")


async def test_a_cursor_is_opaque_url_safe_and_takes_another_limit(
    app: Starlette, operator: HeldKey, cursor: str
) -> None:
    answer = await call(app, "GET", f"/v1/keys?status=active&limit=7&cursor={cursor}", key=operator)

    keys = await ApiKey.filter().order_by("id").all()
    assert [key["access_key"] for key in answer.json["data"]] == [key.access_key for key in keys[1:]]
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert str(keys[0].id) not in (cursor, cursor[:4])


@pytest.mark.parametrize(
    "body, words",
    [
        ({"email": "nobody", "name": "n"}, "an email address, with one @"),
        ({"email": "a@b", "name": "a\nb"}, "text without control characters"),
    ],
)
async def test_a_client_is_told_in_words_and_not_by_a_pattern(
    app: Starlette, operator: HeldKey, body: dict[str, str], words: str
) -> None:
    answer = await call(app, "POST", "/v1/users", key=operator, body=body)

    assert_problem(answer, 422, "invalid_body")
    assert words in answer.json["detail"]
    assert "regex" not in answer.json["detail"]
