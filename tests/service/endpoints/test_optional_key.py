"""A route with an optional key: calls without a credential are accepted, and authenticated callers are known."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey import Principal, hold_caller, issue_key
from latchkey.models import User
from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.operation import Operation, RouteError, route
from tests import wire
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.service.limits.rules import limit, remaining

SECRET = "lks_00000000000000000000000000000000000000000003GTfko"


class Greeting(msgspec.Struct):
    name: str | None
    scopes: list[str] = []


class Note(msgspec.Struct):
    text: str


class Page(msgspec.Struct):
    page: int = 1


async def greet(request: Request, caller: Principal | None, query: Page) -> Greeting:
    """Greet the caller."""
    assert request.user.is_authenticated is (caller is not None)
    if caller is None:
        return Greeting(name=None)
    return Greeting(name=caller.user.name, scopes=sorted(caller.scopes))


async def write(caller: Principal | None, body: Note) -> Greeting:
    """Write a note."""
    return Greeting(name=None if caller is None else caller.user.name)


async def hold(request: Request) -> Greeting:
    return Greeting(name=(await hold_caller(request)).user.name)


async def sign_up(caller: Principal | None) -> Greeting:
    owner = caller.user.id if caller else (await User.create(email="new@example.com", name="New")).id
    made = await issue_key(owner, name="n", scopes=["users:read"])
    return Greeting(name=made.key.access_key)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return [
        route("GET", "/greeting", greet, optional_key=True),
        route("POST", "/notes", write, optional_key=True, cost=2),
        route("POST", "/hold", hold, optional_key=True),
        route("POST", "/sign-up", sign_up, optional_key=True),
    ]


def signed(key: HeldKey, query: str = "", **options: Any) -> tuple[str, tuple[str, str]]:
    query, proof = sign_query(
        key.secret,
        query,
        key.access_key,
        datetime.now(UTC).timestamp(),
        method="GET",
        path="/greeting",
        **options,
    )
    return query, ("secret", proof)


class TestWithout:
    async def test_a_call_without_a_key_is_answered_without_a_query(self, app: Starlette) -> None:
        with wire.listening() as commands:
            answer = await call(app, "GET", "/greeting")

        assert (answer.status, answer.json) == (200, {"name": None, "scopes": []})
        assert commands == []
        assert answer.headers["cache-control"] == "private, no-store"

    async def test_a_call_without_a_key_may_write(self, app: Starlette) -> None:
        assert (await call(app, "POST", "/notes", body={"text": "x"})).json["name"] is None
        assert (await call(app, "POST", "/notes", chunks=[b'{"text"', b':"x"}'])).json["name"] is None

    async def test_a_parameter_is_read_and_those_of_a_signature_are_unknown(self, app: Starlette) -> None:
        assert (await call(app, "GET", "/greeting?page=2")).status == 200
        assert_problem(await call(app, "GET", "/greeting?nonce=0123456789abcdef"), 400, "invalid_parameter")

    async def test_a_call_without_a_key_is_refused_where_a_caller_is_needed(self, app: Starlette) -> None:
        assert_problem(await call(app, "POST", "/hold"), 401, "unauthenticated")

    async def test_nobodys_key_bounds_what_the_endpoint_does(self, app: Starlette) -> None:
        assert (await call(app, "POST", "/sign-up")).status == 200


class TestWithARightOne:
    @pytest.mark.parametrize("mode", ["bearer", "signed"])
    async def test_the_caller_is_known(self, app: Starlette, mode: str) -> None:
        key = await hold_key(app, mode=mode, scopes=["keys:read"])

        read = await call(app, "GET", "/greeting?page=2", key=key)
        written = await call(app, "POST", "/notes", key=key, body={"text": "x"})
        held = await call(app, "POST", "/hold", key=key)

        assert read.json == {"name": "Operator", "scopes": ["keys:read"]}
        assert (written.json["name"], held.json["name"]) == ("Operator", "Operator")
        assert read.headers["cache-control"] == "private, no-store"

    async def test_a_signed_message_is_one_too(self, app: Starlette) -> None:
        key = await hold_key(app, mode="signed")
        now = int(datetime.now(UTC).timestamp())
        headers = sign_message(
            key.secret, key.access_key, now, method="GET", scheme="http", authority="testserver",
            raw_path="/greeting", nonce="n0nce-0123456789abcdef",
        )  # fmt: skip

        answer = await call(app, "GET", "/greeting", headers=list(headers.items()))

        assert answer.json["name"] == "Operator"

    async def test_it_is_charged_and_nobody_else_is(self, app: Starlette) -> None:
        key = await hold_key(app, limits=[limit(limit=3)])

        first = await call(app, "POST", "/notes", key=key, body={"text": "x"})
        anonymous = await call(app, "POST", "/notes", body={"text": "x"})
        second = await call(app, "POST", "/notes", key=key, body={"text": "x"})

        assert remaining(first) == {"burst": 1}
        assert anonymous.status == 200
        assert "ratelimit" not in anonymous.headers
        assert_problem(second, 429, "rate_limited")

    async def test_it_is_taken_once(self, app: Starlette) -> None:
        key = await hold_key(app, mode="signed")
        query, proof = signed(key, "page=2", nonce="0123456789abcdef")

        first = await call(app, "GET", f"/greeting?{query}", headers=[proof])
        again = await call(app, "GET", f"/greeting?{query}", headers=[proof])

        assert first.json["name"] == "Operator"
        assert_problem(again, 401, "replayed")

    async def test_its_rules_bound_the_keys_that_the_endpoint_makes(self, app: Starlette) -> None:
        key = await hold_key(app, scopes=["keys:read"])

        assert_problem(await call(app, "POST", "/sign-up", key=key), 403, "scope_not_held")


WRONG = [
    pytest.param("", [("authorization", f"Bearer {SECRET}")], id="an unknown secret"),
    pytest.param("", [("authorization", "Bearer nonsense")], id="no secret"),
    pytest.param("", [("authorization", "Basic YTpi")], id="another scheme"),
    pytest.param("", [("authorization", "")], id="an empty header"),
    pytest.param("", [("authorization", "Bearer a"), ("authorization", "Bearer b")], id="twice"),
    pytest.param("?key=lka_0000000000000000000000", [], id="a key without a secret"),
    pytest.param("?key=", [], id="an empty key"),
    pytest.param("?%6Bey=x", [], id="a key in escapes"),
    pytest.param("", [("secret", "x")], id="a secret without a key"),
    pytest.param("", [("secret", "")], id="an empty secret"),
    pytest.param("", [("signature", "sig=:AAAA:")], id="half a message"),
    pytest.param("", [("signature-input", "")], id="the other half, empty"),
]


class TestWithAWrongOne:
    @pytest.mark.parametrize(("query", "headers"), WRONG)
    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_it_is_refused_and_never_anonymous(
        self, app: Starlette, method: str, query: str, headers: list[Any]
    ) -> None:
        path = "/greeting" if method == "GET" else "/notes"
        body = None if method == "GET" else {"text": "x"}

        refused = await call(app, method, path + query, headers=headers, body=body)

        assert_problem(refused, 401, "unauthenticated")
        assert refused.headers["cache-control"] in {"no-store", "private, no-store"}

    async def test_two_are_refused(self, app: Starlette, operator: HeldKey) -> None:
        query, proof = signed(await hold_key(app, mode="signed"))

        refused = await call(app, "GET", f"/greeting?{query}", headers=[proof, operator.bearer])

        assert_problem(refused, 400, "two_credentials")

    @pytest.mark.parametrize(
        ("held", "status", "code"),
        [
            ({"status": "revoked"}, 401, "key_revoked"),
            ({"expires_at": datetime.now(UTC) - timedelta(seconds=1)}, 401, "key_expired"),
            ({"allowed_networks": ["192.0.2.0/24"]}, 403, "network_not_allowed"),
        ],
    )
    async def test_a_key_that_may_not_call_is_refused(
        self, app: Starlette, held: dict[str, Any], status: int, code: str
    ) -> None:
        key = await hold_key(app, **held)

        assert_problem(await call(app, "GET", "/greeting", key=key), status, code)

    async def test_another_body_than_was_signed_is_refused(self, app: Starlette) -> None:
        key = await hold_key(app, mode="signed")
        query, proof = sign_query(
            key.secret, "", key.access_key, datetime.now(UTC).timestamp(),
            method="POST", path="/notes", body=b'{"text":"x"}',
        )  # fmt: skip

        refused = await call(
            app, "POST", f"/notes?{query}", headers=[("secret", proof)], body={"text": "other"}
        )

        assert_problem(refused, 401, "digest_mismatch")


async def test_the_description_has_an_empty_alternative(app: Starlette) -> None:
    document = json.loads(app.state.latchkey.openapi)
    described = document["paths"]["/greeting"]["get"]

    assert described["security"] == [
        {},
        {"bearer": []},
        {"signed_query_key": [], "signed_query_signature": []},
        {"message_signature": [], "message_signature_input": []},
    ]
    assert "one that is sent must be valid" in described["description"]
    assert "401" in described["responses"]
    assert "RateLimit" in described["responses"]["200"]["headers"]


@pytest.mark.parametrize(
    ("endpoint", "options", "sentence"),
    [
        (greet, {"optional_key": True, "public": True}, "set exactly one of"),
        (greet, {"optional_key": True, "scope": "a:b"}, "set exactly one of"),
        (greet, {"any_key": True}, "the endpoint's caller must have the type Principal, not"),
        (sign_up, {"optional_key": True, "idempotent": True}, "needs a key, to distinguish the calls"),
    ],
)
def test_declarations_that_cannot_work_are_refused_at_the_start(
    endpoint: Callable[..., Any], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RouteError, match=sentence):
        route("POST", "/x", endpoint, **options)
