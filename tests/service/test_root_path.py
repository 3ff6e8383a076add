"""Behind a proxy that strips a path, everything that names a URL carries the path."""

import json
import time
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.middleware.root_path import RootPathMiddleware, root_path
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.connections.bounds import Bounds
from latchkey.service.settings import Settings, SettingsError
from tests.api import hold_key
from tests.requests import request

ROOT = "/partners/api"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, root_path=ROOT)


async def test_location_link_and_the_type_of_a_problem_carry_it(app: Starlette) -> None:
    key = await hold_key(app)
    headers = dict([key.bearer])

    made = await request(
        app, "POST", "/v1/users", body={"email": "ann@example.com", "name": "Ann"}, headers=headers
    )
    listed = await request(app, "GET", "/v1/users", query="limit=1", headers=headers)
    refused = await request(app, "GET", "/v1/me")
    absent = await request(app, "GET", "/nowhere")
    wrong_method = await request(app, "PUT", "/v1/users", headers=headers)
    description = await request(app, "GET", "/openapi.json")

    assert made.headers["location"] == f"{ROOT}/v1/users/{made.json['id']}"
    assert listed.headers["link"].startswith(f"<{ROOT}/v1/users?limit=1&cursor=")
    assert refused.json["type"] == f"{ROOT}/problems/unauthenticated"
    assert absent.json["type"] == f"{ROOT}/problems/not_found"
    assert (wrong_method.status, wrong_method.headers["allow"]) == (405, "GET, HEAD, POST")
    assert [one["url"] for one in description.json["servers"]] == [ROOT]
    assert root_path.get() == ""


async def test_the_next_page_is_where_the_link_leads(app: Starlette) -> None:
    headers = dict([(await hold_key(app)).bearer])
    await hold_key(app, email="second@example.com")

    link = (await request(app, "GET", "/v1/users", query="limit=1", headers=headers)).headers["link"]
    path, _, query = link.removeprefix("<").partition(">")[0].removeprefix(ROOT).partition("?")
    second = await request(app, "GET", path, query=query, headers=headers)

    assert (second.status, len(second.json["data"])) == (200, 1)


@pytest.mark.parametrize("signed, status", [(f"{ROOT}/v1/users", 201), ("/v1/users", 401)])
async def test_the_signature_covers_the_path_that_the_client_calls(
    app: Starlette, signed: str, status: int
) -> None:
    key = await hold_key(app, mode="signed")
    body = json.dumps({"email": "ann@example.com", "name": "Ann"}).encode()
    query, mac = sign_query(
        key.secret, "", key.access_key, time.time(), method="POST", path=signed, body=body, nonce="n" * 20
    )

    made = await request(
        app,
        "POST",
        "/v1/users",
        query=query,
        body=body,
        headers={"secret": mac, "content-type": "application/json"},
    )

    assert made.status == status


@pytest.mark.parametrize(
    "location, sent",
    [
        ("/v1/users/1", "/p/v1/users/1"),
        ("/p/v1/users/1", "/p/v1/users/1"),
        ("https://example.com/x", "https://example.com/x"),
        ("//example.com/x", "//example.com/x"),
        ("users/1", "users/1"),
    ],
)
async def test_only_a_path_without_it_gets_it(location: str, sent: str) -> None:
    async def endpoint(_scope: Any, _receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 201, "headers": [(b"location", location.encode())]}
        )
        await send({"type": "http.response.body", "body": b""})

    answer = await request(RootPathMiddleware(endpoint, path="/p"), "GET", "/")

    assert answer.headers["location"] == sent


@pytest.mark.parametrize("text", ["partners", "/", "/partners/", "/a//b", "/a b", "/é", "/a\n"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_ROOT_PATH: it must be one to five names"):
        Settings.from_env({"LATCHKEY_ROOT_PATH": text})


def test_a_refusal_of_the_connection_carries_it_too() -> None:
    assert Bounds.of(Settings(root_path=ROOT)).root_path == ROOT
