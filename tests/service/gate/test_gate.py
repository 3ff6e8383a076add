"""`/v1/gate`: a proxy learns whether the request that it received is permitted, and who makes it."""

import asyncio
import hashlib
import json
import logging
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.models import User
from latchkey.models.usage import NO_KEY
from latchkey.service.gate.decision import IDENTITY
from latchkey.service.networks import Proxies
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import on_mariadb
from tests.service.gate.asking import (
    ENVOY,
    GATE,
    HOST,
    NGINX,
    ask,
    put_in_force,
    signed_by_message,
    signed_by_query,
)
from tests.service.limits.rules import limit
from tests.service.usage.counted import rows, stored

RULES = """
[[rules]]
paths = ["/health"]
public = true

[[rules]]
hosts = ["api.example.com"]
methods = ["GET"]
paths = ["/orders/**"]
scope = "orders:read"

[[rules]]
hosts = ["api.example.com"]
methods = ["POST", "PUT", "DELETE", "PROPFIND"]
paths = ["/orders/**"]
scope = "orders:write"
cost = 3

[[rules]]
hosts = ["api.example.com"]
paths = ["/free"]
any_key = true
cost = 0
"""
BODY = b"name=Ann"
EMPTY = hashlib.sha256(b"").hexdigest()
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "gate.toml"
    file.write_text(RULES)
    return msgspec.structs.replace(
        settings, gate_rules=str(file), trusted_proxies="127.0.0.0/8", pool_timeout_s=10.0
    )


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    return await hold_key(app, email="partner@example.com", scopes=["orders:*"])


@pytest.fixture
async def signer(app: Starlette) -> HeldKey:
    return await hold_key(app, email="partner@example.com", scopes=["orders:*"], mode="signed")


def signed(form: str, app: Starlette, key: HeldKey, *args: Any) -> dict[str, Any]:
    if form == "query":
        return signed_by_query(app, key, *args, nonce="n" * 16)
    return signed_by_message(app, key, *args, nonce="n" * 16)


FORMS = pytest.mark.parametrize("form", ["query", "message"])


@pytest.mark.parametrize("gate", [GATE, NGINX])
async def test_a_permission_names_the_caller(app: Starlette, partner: HeldKey, gate: str) -> None:
    answer = await ask(app, "GET", "/orders/7?a=1", key=partner, gate=gate)

    assert (answer.status, answer.body) == (204, b"")
    assert {name: answer.headers[name] for name in IDENTITY} == {
        "x-latchkey-owner": str(partner.user_id),
        "x-latchkey-key": partner.access_key,
        "x-latchkey-external-id": "",
        "x-latchkey-owner-external-id": "",
        "x-latchkey-scopes": "orders:*",
        "x-latchkey-environment": "live",
        "x-latchkey-content-sha256": "",
    }
    assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize("asked_by", METHODS)
async def test_the_gate_takes_every_method(app: Starlette, partner: HeldKey, asked_by: str) -> None:
    answer = await ask(
        app, "DELETE", "/orders/7", key=partner, asked_by=asked_by, headers=[("idempotency-key", "abc")]
    )

    assert answer.status == 204


async def test_a_query_of_the_gates_own_url_means_nothing(app: Starlette, partner: HeldKey) -> None:
    """Caddy keeps the query of the original request when it rewrites the URI."""

    async def with_query(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "query_string": b"key=lka_x&path=/health&a=1&a=2"}, receive, send)

    answer = await ask(app, "GET", "/orders/7", key=partner)
    same = await ask(with_query, "GET", "/orders/7", key=partner)  # type: ignore[arg-type]  # a wrapped application

    assert (answer.status, same.status) == (204, 204)


async def test_a_public_request_needs_no_credential(app: Starlette) -> None:
    answer = await ask(app, "GET", "/health", headers=[("authorization", "Bearer nonsense")])

    assert answer.status == 204
    assert {answer.headers[name] for name in IDENTITY} == {""}


@pytest.mark.parametrize(
    "method, uri, others",
    [
        pytest.param("GET", "/", {}, id="the root"),
        pytest.param("PATCH", "/orders/7", {}, id="a method"),
        pytest.param("GET", "/orders/7", {"host": "other.example.com"}, id="a host"),
        pytest.param("GET", "/v1/users", {}, id="a path of the service"),
    ],
)
async def test_a_request_without_a_rule_is_refused(
    app: Starlette, partner: HeldKey, method: str, uri: str, others: dict[str, Any]
) -> None:
    assert_problem(await ask(app, method, uri, key=partner, **others), 403, "no_gate_rule")


async def test_without_rules_every_request_is_refused(app: Starlette, partner: HeldKey) -> None:
    put_in_force(app, b"rules = []")

    assert_problem(await ask(app, "GET", "/health", key=partner), 403, "no_gate_rule")


@pytest.mark.parametrize("trusted", ["10.0.0.0/8", None])
async def test_only_a_trusted_proxy_may_ask(app: Starlette, partner: HeldKey, trusted: str | None) -> None:
    app.state.latchkey.verifier.proxies = Proxies() if trusted is None else Proxies.from_text(trusted)

    for gate in (GATE, NGINX, ENVOY):
        answer = await ask(app, "GET", "/orders/7", key=partner, gate=gate, body=BODY, asked_by="POST")
        assert (answer.status, answer.json["code"]) == (403, "gate_caller_refused")
        assert not answer.headers.keys() & set(IDENTITY)


@pytest.mark.parametrize("gate", [GATE, NGINX])
@pytest.mark.parametrize("absent", ["method", "uri", "host", "proto", "client"])
async def test_an_incomplete_description_is_refused(
    app: Starlette, partner: HeldKey, gate: str, absent: str
) -> None:
    """Otherwise the client could send the header that the proxy does not set."""
    sent: dict[str, Any] = {"method": "GET", "uri": "/orders/7", absent: None}

    answer = await ask(app, **sent, key=partner, gate=gate)

    assert answer.json["code"] == "gate_request_invalid"
    assert (absent if absent != "client" else "x-forwarded-for") in answer.json["detail"]


@pytest.mark.parametrize("name", ["x-forwarded-uri", "x-forwarded-host", "x-forwarded-method"])
async def test_a_repeated_description_is_refused(app: Starlette, partner: HeldKey, name: str) -> None:
    answer = await ask(app, "GET", "/orders/7", key=partner, headers=[(name, "/health")])

    assert_problem(answer, 400, "gate_request_invalid")


@pytest.mark.parametrize(
    "gate, other", [pytest.param(GATE, "x-original-", id="caddy"), pytest.param(NGINX, "x-forwarded-", id="nginx")]
)  # fmt: skip
async def test_the_other_headers_of_a_description_are_the_clients(
    app: Starlette, gate: str, other: str
) -> None:
    spoofed = [(f"{other}uri", "/health"), (f"{other}method", "GET"), (f"{other}host", HOST)]

    answer = await ask(app, "GET", "/orders/7", gate=gate, headers=spoofed)

    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"uri": "/orders/../health"}, id="dot segments"),
        pytest.param({"uri": "/health/%2e%2e/orders"}, id="escaped dot segments"),
        pytest.param({"uri": "//orders/7"}, id="two slashes"),
        pytest.param({"uri": "/health%2F..%2Forders"}, id="encoded slashes"),
        pytest.param({"uri": "/health;/orders"}, id="a semicolon"),
        pytest.param({"uri": "https://api.example.com/health"}, id="an absolute URI"),
        pytest.param({"host": "api.example.com, evil.example"}, id="two hosts"),
        pytest.param({"host": "api.example.com/health"}, id="a host with a path"),
        pytest.param({"method": "get"}, id="a method in lower case"),
        pytest.param({"headers": [("x-http-method-override", "DELETE")]}, id="another method"),
        pytest.param({"headers": [("x-original-url", "/admin")]}, id="another URL"),
        pytest.param({"headers": [("x-latchkey-owner", "1")]}, id="a header of the gate"),
        pytest.param({"headers": [("x_latchkey_owner", "1")]}, id="with underscores"),
        pytest.param({"headers": [("x-latchkey_new", "1")]}, id="of a name that does not exist yet"),
    ],
)
async def test_an_ambiguous_request_is_refused(
    app: Starlette, partner: HeldKey, changes: dict[str, Any]
) -> None:
    asked = {"method": "GET", "uri": "/health", **changes}

    assert_problem(await ask(app, key=partner, **asked), 400, "ambiguous_request")


async def test_a_scheme_must_be_known(app: Starlette, partner: HeldKey) -> None:
    assert (await ask(app, "GET", "/orders", key=partner, proto="WSS")).status == 204
    assert_problem(await ask(app, "GET", "/orders", key=partner, proto="ftp"), 400, "gate_request_invalid")


async def test_a_key_without_the_scope_is_refused_with_its_name(app: Starlette) -> None:
    reader = await hold_key(app, email="reader@example.com", scopes=["orders:read"])

    assert (await ask(app, "GET", "/orders/7", key=reader)).status == 204
    answer = await ask(app, "DELETE", "/orders/7", key=reader)

    assert_problem(answer, 403, "scope_missing")
    assert 'scope="orders:write"' in answer.headers["www-authenticate"]


async def test_a_role_gives_its_scopes(app: Starlette, operator: HeldKey) -> None:
    put_in_force(app, b'[[rules]]\npaths = ["/**"]\nscope = "users:read"')
    await call(app, "POST", "/v1/roles", key=operator, body={"name": "clerk", "scopes": ["users:read"]})
    body = {
        "user_id": operator.user_id,
        "name": "n",
        "mode": "bearer",
        "scopes": ["keys:read"],
        "roles": ["clerk"],
    }
    secret = (await call(app, "POST", "/v1/keys", key=operator, body=body)).json["secret"]

    answer = await ask(app, "GET", "/orders", headers=[("authorization", f"Bearer {secret}")])

    assert (answer.status, answer.headers["x-latchkey-scopes"]) == (204, "keys:read users:read")


@pytest.mark.parametrize(
    "headers, status, code",
    [
        pytest.param([], 401, "unauthenticated", id="missing"),
        pytest.param([("authorization", "Bearer lks_wrong")], 401, "unauthenticated", id="wrong"),
        pytest.param([("authorization", "Bearer a"), ("secret", "b")], 400, "two_credentials", id="two"),
    ],
)
async def test_a_wrong_credential_is_refused(
    app: Starlette, headers: list[tuple[str, str]], status: int, code: str
) -> None:
    answer = await ask(app, "GET", "/orders/7", headers=headers)

    assert_problem(answer, status, code)
    assert ("accept-signature" in answer.headers) is (status == 401)


@pytest.mark.parametrize(
    "state, code",
    [
        ({"status": "revoked"}, "key_revoked"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "key_expired"),
    ],
)
async def test_a_key_that_has_ended_is_refused(app: Starlette, state: dict[str, Any], code: str) -> None:
    key = await hold_key(app, email="ended@example.com", scopes=["orders:*"], **state)

    assert_problem(await ask(app, "GET", "/orders", key=key), 401, code)


async def test_a_key_of_a_blocked_owner_is_refused(app: Starlette, partner: HeldKey) -> None:
    async with app.state.db.scoped_session() as session:
        await (await User.filter_by(id=partner.user_id).one()).update(status="blocked")
        await session.commit()

    assert_problem(await ask(app, "GET", "/orders", key=partner), 401, "owner_inactive")


async def test_the_address_is_that_of_the_client(app: Starlette) -> None:
    key = await hold_key(
        app, email="near@example.com", scopes=["orders:*"], allowed_networks=["192.0.2.0/24"]
    )

    answers = [
        await ask(app, "GET", "/orders", key=key, client=client)
        for client in ("192.0.2.7", "198.51.100.1", "192.0.2.7, 198.51.100.1", "198.51.100.1, 192.0.2.7", "127.0.0.1")
    ]  # fmt: skip

    assert [answer.status for answer in answers] == [204, 403, 403, 204, 403]


@FORMS
async def test_a_signed_request_is_permitted_once(app: Starlette, signer: HeldKey, form: str) -> None:
    sent = signed(form, app, signer, "POST", "/orders", BODY)

    first = await ask(app, **sent, content_length=str(len(BODY)))
    second = await ask(app, **sent, content_length=str(len(BODY)))

    assert first.status == 204
    assert first.headers["x-latchkey-content-sha256"] == hashlib.sha256(BODY).hexdigest()
    assert_problem(second, 401, "replayed")


@pytest.mark.parametrize(
    "form, changes",
    [
        ("query", {"method": "PUT"}),
        ("query", {"uri": "/orders/8"}),
        ("message", {"method": "PUT"}),
        ("message", {"uri": "/orders/8"}),
        ("message", {"host": "api.example.com:8443"}),
        ("message", {"proto": "http", "host": "api.example.com:443"}),
    ],
)
async def test_the_signature_is_that_of_the_original_request(
    app: Starlette, signer: HeldKey, form: str, changes: dict[str, str]
) -> None:
    sent = signed(form, app, signer, "POST", "/orders", BODY)
    query = sent["uri"].partition("?")[2]
    received = {**sent, **changes}
    received["uri"] = f"{received['uri'].partition('?')[0]}?{query}"

    answer = await ask(app, **received, content_length="8")

    assert_problem(answer, 401, "unauthenticated")


async def test_the_hosts_of_messages_are_those_of_the_requests(app: Starlette, signer: HeldKey) -> None:
    """`LATCHKEY_PUBLIC_AUTHORITY` is the host of this service."""
    app.state.latchkey.verifier.public_authority = "keys.example.com"

    answer = await ask(app, **signed("message", app, signer, "POST", "/orders", BODY), content_length="8")

    assert answer.status == 204


@FORMS
@pytest.mark.parametrize("body, status", [(BODY, 204), (b"another", 401)])
async def test_a_body_that_the_proxy_passes_on_is_checked(
    app: Starlette, signer: HeldKey, form: str, body: bytes, status: int
) -> None:
    sent = signed(form, app, signer, "POST", "/orders", BODY)
    if form == "message":
        # The proxy passes the type of the body on, which is signed.
        sent["headers"] = [one for one in sent["headers"] if one[0].lower() != "content-length"]

    answer = await ask(app, **sent, asked_by="POST", body=body)

    assert answer.status == status
    assert status == 204 or answer.json["code"] == "digest_mismatch"


@pytest.mark.parametrize("told", [{"content_length": "8"}, {"transfer_encoding": "chunked"}])
async def test_a_body_must_be_covered_where_the_proxy_says_that_there_is_one(
    app: Starlette, signer: HeldKey, told: dict[str, Any]
) -> None:
    sent = signed_by_message(app, signer, "POST", "/orders", None, nonce="n" * 16)

    assert (await ask(app, **sent, **told)).status == 401
    untold = await ask(app, **sent, content_length="0")

    # The service behind the proxy can still refuse a body.
    assert (untold.status, untold.headers["x-latchkey-content-sha256"]) == (204, EMPTY)


async def test_limits_are_charged_with_the_cost_of_the_rule(app: Starlette) -> None:
    key = await hold_key(app, email="few@example.com", scopes=["orders:*"], limits=[limit(limit=7)])

    charged = [await ask(app, "DELETE", "/orders/7", key=key) for _ in range(3)]
    free = await ask(app, "GET", "/free", key=key)
    one = await ask(app, "GET", "/orders/7", key=key)
    none = await ask(app, "GET", "/orders/7", key=key)

    assert [answer.status for answer in charged] == [204, 204, 429]
    assert charged[0].headers["ratelimit"].startswith('"burst";r=4')
    assert (free.status, one.status) == (204, 204)
    assert_problem(none, 429, "rate_limited")


@on_mariadb
async def test_a_limit_is_exact_among_many_at_once(app: Starlette) -> None:
    key = await hold_key(app, email="few@example.com", scopes=["orders:*"], limits=[limit(limit=20)])

    answers = await asyncio.gather(*(ask(app, "GET", "/orders", key=key) for _ in range(60)))

    assert Counter(answer.status for answer in answers) == {204: 20, 429: 40}


async def test_an_idempotency_key_of_the_client_makes_no_call_free(app: Starlette) -> None:
    key = await hold_key(app, email="few@example.com", scopes=["orders:*"], limits=[limit(limit=3)])

    answers = [
        await ask(app, "POST", "/orders", key=key, headers=[("idempotency-key", "abc")]) for _ in range(2)
    ]

    assert [answer.status for answer in answers] == [204, 429]


async def test_nginx_gets_only_statuses_that_it_passes_on(app: Starlette, partner: HeldKey) -> None:
    limited = await hold_key(app, email="few@example.com", scopes=["orders:*"], limits=[limit(limit=1)])
    await ask(app, "GET", "/orders", key=limited, gate=NGINX)

    answers = {
        "missing": await ask(app, "GET", "/orders", gate=NGINX),
        "no rule": await ask(app, "GET", "/none", key=partner, gate=NGINX),
        "limited": await ask(app, "GET", "/orders", key=limited, gate=NGINX),
        "ambiguous": await ask(app, "GET", "//orders", key=partner, gate=NGINX),
    }

    carried = {
        name: (one.status, one.headers["x-latchkey-status"], one.headers["x-latchkey-code"])
        for name, one in answers.items()
    }
    assert carried == {
        "missing": (401, "401", "unauthenticated"),
        "no rule": (403, "403", "no_gate_rule"),
        "limited": (403, "429", "rate_limited"),
        "ambiguous": (403, "400", "ambiguous_request"),
    }
    assert 1 <= int(answers["limited"].headers["retry-after"]) <= 60
    for one in answers.values():
        assert json.loads(one.headers["x-latchkey-problem"]) == one.json
        assert one.json["request_id"] == one.headers["x-request-id"]


async def test_the_log_names_the_rule_and_no_secret(
    app: Starlette, partner: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    reader = await hold_key(app, email="reader@example.com", scopes=["orders:read"])
    await ask(app, "DELETE", "/orders/a%20b?token=hidden", key=reader)
    await ask(app, "GET", "/nowhere", key=reader)

    lines = [one.getMessage() for one in log_lines if one.name == "latchkey.gate"]

    assert lines == [
        "refused: scope_missing; rule 3, DELETE api.example.com/orders/a%20b",
        "refused: no rule fits GET api.example.com/nowhere",
    ]


async def test_requests_are_counted_for_their_key_by_the_rule(app: Starlette, partner: HeldKey) -> None:
    await ask(app, "GET", "/orders/7", key=partner)
    await ask(app, "POST", "/orders/7", key=partner)
    await ask(app, "GET", "/free", key=partner)
    await ask(app, "GET", "/orders/7", gate=NGINX)
    await ask(app, "GET", "/nothing", key=partner)
    await app.state.latchkey.usage.flush()

    assert sorted(await rows(app, partner.id)) == [
        ("gate: rule 2", 204, "", "", 1, 1),
        ("gate: rule 3", 204, "", "", 1, 3),
        ("gate: rule 4", 204, "", "", 1, 0),
    ]
    assert await stored(app, NO_KEY) == {
        ("GET /v1/gate", 403, "no_gate_rule", ""): 1,
        ("gate: rule 2", 401, "unauthenticated", ""): 1,
    }
