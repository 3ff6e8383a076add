"""Calls that sign their message (RFC 9421), through all middleware."""

from typing import Any

import http_message_signatures as judge
import msgspec
import pytest
from http_message_signatures.algorithms import HMAC_SHA256
from starlette.applications import Starlette

from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.structured_fields import inner_lists
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem
from tests.requests import Answer, request


class Message(msgspec.Struct):
    """A request as the independent library sees it."""

    method: str
    url: str
    headers: dict[str, str]


NONCE = "n0nce-0123456789abcdef"
BODY = b'{"email": "a@b", "name": "n"}'
HOST = "testserver"


def signed(app: Starlette, key: HeldKey, verb: str, path: str, **changes: Any) -> dict[str, str]:
    """Return the headers of a call that is signed at the server's own clock."""
    body = BODY if verb == "POST" else None
    call: dict[str, Any] = {
        "method": verb,
        "scheme": "http",
        "authority": HOST,
        "raw_path": path,
        "nonce": NONCE,
        "body": body,
        "content_type": "application/json" if body else None,
        **changes,
    }
    now = call.pop("now", app.state.latchkey.verifier.clock())
    return sign_message(key.secret, key.access_key, now, **call)


async def send(
    app: Starlette, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> Answer:
    content = BODY if body is None and method == "POST" else body
    return await request(app, method, path, body=content or None, headers={"host": HOST, **headers})


@pytest.mark.parametrize("method, path", [("GET", "/v1/me"), ("POST", "/v1/users")])
async def test_a_401_asks_for_the_signature_that_the_request_needs(
    app: Starlette, signer: HeldKey, method: str, path: str
) -> None:
    """RFC 9421, section 5: a client that signs what is asked for, with the nonce, is accepted."""
    body = BODY if method == "POST" else None
    refused = await request(app, method, path, body=body, headers={"host": HOST})
    asked = inner_lists(refused.headers["accept-signature"])["sig1"]
    headers = signed(app, signer, method, path, nonce=asked.parameters["nonce"].strip('"'))

    assert_problem(refused, 401, "unauthenticated")
    assert headers["signature-input"].startswith(f"sig1=({asked.items});")
    assert asked.parameters["tag"] == '"latchkey-v1"'
    assert asked.parameters["created"] == ""
    assert (await send(app, method, path, headers)).status in {200, 201}


async def test_a_call_that_signs_its_message_is_taken_once(app: Starlette, signer: HeldKey) -> None:
    headers = signed(app, signer, "GET", "/v1/me")
    first = await send(app, "GET", "/v1/me", headers)
    second = await send(app, "GET", "/v1/me", headers)

    assert (first.status, first.json["key"]["access_key"]) == (200, signer.access_key)
    assert_problem(second, 401, "replayed")


async def test_a_body_is_covered_by_its_digest(app: Starlette, signer: HeldKey) -> None:
    headers = signed(app, signer, "POST", "/v1/users")
    changed = await send(app, "POST", "/v1/users", headers, BODY.replace(b"a@b", b"x@y"))
    right = await send(app, "POST", "/v1/users", headers)

    assert_problem(changed, 401, "digest_mismatch")
    assert right.status == 201, "a changed body did not use the nonce up"


async def test_a_body_that_nothing_covers_is_refused(app: Starlette, signer: HeldKey) -> None:
    """On endpoints that read no body, too."""
    headers = signed(app, signer, "DELETE", f"/v1/keys/{signer.access_key}")

    assert_problem(
        await send(app, "DELETE", f"/v1/keys/{signer.access_key}", headers, b"{}"), 401, "unauthenticated"
    )


@pytest.mark.parametrize("off_s, status", [(-61, 401), (-60, 200), (0, 200), (60, 200), (61, 401)])
async def test_created_is_inside_the_window_on_both_edges(
    app: Starlette, signer: HeldKey, off_s: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(app.state.latchkey.verifier.clock())
    monkeypatch.setattr(app.state.latchkey.verifier, "clock", lambda: now)
    headers = signed(app, signer, "GET", "/v1/me", now=now + off_s)

    assert (await send(app, "GET", "/v1/me", headers)).status == status


@pytest.mark.parametrize(
    "changes",
    [{"method": "POST"}, {"raw_path": "/v1/users"}, {"authority": "other"}, {"query_string": "a=b"}],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_signature_is_good_for_this_request_only(
    app: Starlette, signer: HeldKey, changes: dict[str, str]
) -> None:
    headers = signed(app, signer, "GET", "/v1/me", **changes)
    for name in ("content-type", "content-digest"):
        headers.pop(name, None)

    assert_problem(await send(app, "GET", "/v1/me", headers), 401, "unauthenticated")


async def test_an_authenticated_read_costs_two_round_trips(app: Starlette, signer: HeldKey) -> None:
    await send(app, "GET", "/v1/me", signed(app, signer, "GET", "/v1/me", nonce="warming-up-0123456789"))
    headers = signed(app, signer, "GET", "/v1/me")
    with wire.listening() as commands:
        await send(app, "GET", "/v1/me", headers)

    assert len(commands) == 2


async def test_messages_signed_by_the_independent_library_are_accepted(
    app: Starlette, signer: HeldKey
) -> None:
    call = Message("POST", f"http://{HOST}/v1/users", {"content-type": "application/json"})
    ring = {str(signer.access_key): signer.secret.encode()}
    keys = judge.MappingKeyResolver(public_keys=ring, private_keys=ring)
    judge.HTTPMessageSigner(signature_algorithm=HMAC_SHA256, key_resolver=keys).sign(
        call,
        key_id=signer.access_key,
        nonce=NONCE,
        tag="latchkey-v1",
        covered_component_ids=("@method", "@authority", "@path", "@query", "content-type"),
        body=BODY,
    )
    answer = await send(
        app, "POST", "/v1/users", {name.lower(): value for name, value in call.headers.items()}
    )

    assert answer.status == 201, answer.body


class TestBehindAProxy:
    """PUBLIC_AUTHORITY replaces the Host that a proxy sends."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, public_authority="api.example.com")

    async def test_the_public_name_is_what_is_signed(self, app: Starlette, signer: HeldKey) -> None:
        public = signed(app, signer, "GET", "/v1/me", authority="api.example.com")
        inner = signed(app, signer, "GET", "/v1/me", nonce="another-0123456789")

        assert (await send(app, "GET", "/v1/me", public)).status == 200
        assert_problem(await send(app, "GET", "/v1/me", inner), 401, "unauthenticated")
