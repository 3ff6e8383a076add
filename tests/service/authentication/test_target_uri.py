"""Message signatures over the whole URL, as common libraries make them without being told the components."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import http_message_signatures as judge
import msgspec
import pytest
from http_message_signatures.algorithms import HMAC_SHA256
from starlette.applications import Starlette

from latchkey.service.settings import Settings, SettingsError, read_public_origin
from tests.api import HeldKey, assert_problem, call
from tests.requests import Answer, request

HOST = "testserver"
NONCE = "n0nce-0123456789abcdef"
USER = b'{"email": "a@b", "name": "n"}'
NPM = Path(__file__).parents[2] / "npm"

by_npm = pytest.mark.skipif("LATCHKEY_TEST_NPM" not in os.environ, reason="the long form: make test-npm")


class Message(msgspec.Struct):
    """A request as the independent library sees it."""

    method: str
    url: str
    headers: dict[str, str]


def signed(
    key: HeldKey,
    method: str,
    url: str,
    body: bytes | None = None,
    *,
    kind: str = "application/json",
    **options: Any,
) -> dict[str, str]:
    """Return the headers of a request that the library of PyPI signed; without options, with its own components."""
    headers = {} if body is None else {"content-type": kind}
    message = Message(method, url, headers)
    ring = {str(key.access_key): key.secret.encode()}
    keys = judge.MappingKeyResolver(public_keys=ring, private_keys=ring)
    judge.HTTPMessageSigner(signature_algorithm=HMAC_SHA256, key_resolver=keys).sign(
        message, key_id=key.access_key, nonce=NONCE, tag="latchkey-v1", body=body, **options
    )
    return {name.lower(): value for name, value in message.headers.items()}


async def send(
    app: Starlette,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes | None = None,
    host: str = HOST,
) -> Answer:
    path, _, query = target.partition("?")
    return await request(app, method, path, query=query, body=body, headers={"host": host, **headers})


@pytest.mark.parametrize(
    "method, target, body, status",
    [
        ("GET", "/v1/me", None, 200),
        ("GET", "/v1/users?limit=1&status=active", None, 200),
        ("GET", "/v1/keys/a%20b", None, 404),
        ("HEAD", "/v1/me", None, 200),
        ("POST", "/v1/users", USER, 201),
        ("DELETE", "/v1/users/999", None, 404),
    ],
)
async def test_the_default_components_of_the_library_are_accepted(
    app: Starlette, signer: HeldKey, method: str, target: str, body: bytes | None, status: int
) -> None:
    headers = signed(signer, method, f"http://{HOST}{target}", body)

    assert (await send(app, method, target, headers, body)).status == status
    assert '("@method" "@authority" "@target-uri"' in headers["signature-input"]


@pytest.mark.parametrize(
    "components, status",
    [
        (("@method", "@target-uri"), 200),
        (("@target-uri", "@path", "@method", "@query", "@authority"), 200),
        (("@target-uri",), 401),
        (("@method", "@authority", "@path"), 401),
        (("@method", "@authority", "@scheme", "@request-target"), 401),
    ],
)
async def test_it_stands_for_authority_path_and_query_alone(
    app: Starlette, signer: HeldKey, components: tuple[str, ...], status: int
) -> None:
    headers = signed(signer, "GET", f"http://{HOST}/v1/me", covered_component_ids=components)

    answer = await send(app, "GET", "/v1/me", headers)

    assert answer.status == status
    if status == 401:
        assert "`@target-uri` may replace" in answer.json["detail"]


@pytest.mark.parametrize(
    "method, target, host",
    [
        pytest.param("HEAD", "/v1/me", HOST, id="method"),
        pytest.param("GET", "/v1/keys", HOST, id="path"),
        pytest.param("GET", "/v1/me?limit=2", HOST, id="query"),
        pytest.param("GET", "/v1/me", "other", id="host"),
    ],
)
async def test_a_signature_is_good_for_this_request_only(
    app: Starlette, signer: HeldKey, method: str, target: str, host: str
) -> None:
    headers = signed(signer, "GET", f"http://{HOST}/v1/me", covered_component_ids=("@method", "@target-uri"))

    assert (await send(app, method, target, headers, host=host)).status == 401


async def test_another_content_type_and_an_idempotency_key_must_still_be_covered(
    app: Starlette, signer: HeldKey
) -> None:
    plain = signed(signer, "POST", f"http://{HOST}/v1/users", USER)
    other = signed(signer, "POST", f"http://{HOST}/v1/users", USER, kind="text/plain")
    answers = [
        await send(app, "POST", "/v1/users", other, USER),
        await send(app, "POST", "/v1/users", {**plain, "content-type": "text/plain"}, USER),
        await send(app, "POST", "/v1/users", {**plain, "idempotency-key": "7"}, USER),
        await send(app, "POST", "/v1/users", plain, USER.replace(b"a@b", b"x@y")),
    ]

    for answer, code in zip(answers, ["unauthenticated"] * 3 + ["digest_mismatch"], strict=True):
        assert_problem(answer, 401, code)


async def test_the_explanation_names_the_scheme_that_was_signed(
    app: Starlette, signer: HeldKey, operator: HeldKey
) -> None:
    headers = signed(signer, "GET", "https://testserver/v1/me")
    body = {"method": "GET", "url": "http://testserver/v1/me", "headers": headers}

    answer = await call(app, "POST", "/v1/signatures/explain", key=operator, body=body)

    assert answer.status == 200
    assert "`@target-uri` was signed with https" in answer.body.decode()


class TestBehindAProxy:
    """The proxy terminates TLS and sends another host."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, public_origin="https://api.example.com")

    async def test_the_public_url_is_what_is_signed(self, app: Starlette, signer: HeldKey) -> None:
        inner = await send(app, "GET", "/v1/me", signed(signer, "GET", f"http://{HOST}/v1/me"))
        public = await send(app, "GET", "/v1/me", signed(signer, "GET", "https://api.example.com/v1/me"))

        assert_problem(inner, 401, "unauthenticated")
        assert public.status == 200

    @by_npm
    @pytest.mark.parametrize(
        "method, target, body, fields",
        [
            ("GET", "/v1/me", None, ["@method", "@target-uri"]),
            ("GET", "/v1/users?limit=1&status=active", None, ["@method", "@authority", "@target-uri"]),
            ("GET", "/v1/users?limit=1", None, ["@method", "@authority", "@path", "@query"]),
            ("POST", "/v1/users", USER, ["@method", "@target-uri", "content-digest"]),
            ("POST", "/v1/users", USER, ["@method", "@target-uri", "content-type", "content-digest"]),
        ],
    )
    async def test_messages_signed_by_the_library_of_npm_are_accepted(
        self, app: Starlette, signer: HeldKey, method: str, target: str, body: bytes | None, fields: list[str]
    ) -> None:
        headers = signed_by_npm(signer, method, f"https://api.example.com{target}", body, fields)

        answer = await send(app, method, target, headers, body)

        assert answer.status == (201 if method == "POST" else 200), answer.body
        assert ";alg=" in headers["signature-input"]
        assert ";expires=" in headers["signature-input"]

    @by_npm
    async def test_a_signature_of_npm_that_covers_nothing_is_refused(
        self, app: Starlette, signer: HeldKey
    ) -> None:
        """The library covers no component unless it is told which: such a signature is good for any request."""
        headers = signed_by_npm(signer, "GET", "https://api.example.com/v1/me", None, [])

        answer = await send(app, "GET", "/v1/me", headers)

        assert_problem(answer, 401, "unauthenticated")
        assert "nothing of the request would be signed" in answer.json["detail"]


def signed_by_npm(
    key: HeldKey, method: str, url: str, body: bytes | None, fields: list[str]
) -> dict[str, str]:
    """Return the headers of a request that npm's library signed."""
    node = shutil.which("node")
    assert node is not None
    asked = {
        "method": method,
        "url": url,
        "body": None if body is None else body.decode(),
        "fields": fields,
        "keyid": key.access_key,
        "secret": key.secret,
        "nonce": NONCE,
    }
    done = subprocess.run(
        [node, "sign.mjs"], check=False, cwd=NPM, input=json.dumps(asked), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name.lower(): value for name, value in json.loads(done.stdout).items()}


@pytest.mark.parametrize(
    "origin, authority, expected",
    [
        (None, None, (None, None)),
        (None, "a.example", (None, "a.example")),
        ("https://a.example", None, ("https", "a.example")),
        ("https://a.example:443", "a.example", ("https", "a.example")),
        ("http://a.example:443", None, ("http", "a.example:443")),
        ("http://[::1]:80", None, ("http", "[::1]")),
    ],
)
def test_the_origin_has_a_scheme_and_an_authority(
    origin: str | None, authority: str | None, expected: tuple[str | None, str | None]
) -> None:
    assert read_public_origin(Settings(public_origin=origin, public_authority=authority)) == expected


def test_an_origin_of_another_authority_is_refused() -> None:
    with pytest.raises(SettingsError, match="different hosts"):
        read_public_origin(Settings(public_origin="https://a.example", public_authority="b.example"))


@pytest.mark.parametrize("value", ["a.example", "https://a.example/", "ftp://a", "https://A", "https://"])
def test_an_origin_with_a_path_or_another_scheme_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_PUBLIC_ORIGIN"):
        Settings.from_env({"LATCHKEY_PUBLIC_ORIGIN": value})
