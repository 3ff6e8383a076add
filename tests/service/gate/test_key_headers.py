"""The secret of a key in a header that the operator names, in a request that a proxy received."""

from pathlib import Path

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.settings import Settings
from tests.api import Headers, HeldKey, assert_problem, hold_key
from tests.service.gate.asking import GATE, NGINX, ask

RULES = """
[[rules]]
paths = ["/health"]
public = true

[[rules]]
paths = ["/orders/**"]
scope = "orders:read"
"""


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "gate.toml"
    file.write_text(RULES)
    return msgspec.structs.replace(
        settings, gate_rules=str(file), trusted_proxies="127.0.0.0/8", key_headers="X-API-Key, Api-Key"
    )


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    return await hold_key(app, email="partner@example.com", scopes=["orders:*"])


@pytest.mark.parametrize("gate", [GATE, NGINX])
@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
async def test_a_key_in_a_named_header_is_permitted(
    app: Starlette, partner: HeldKey, gate: str, name: str
) -> None:
    answer = await ask(app, "GET", "/orders/7", gate=gate, headers=[(name, partner.secret)])

    assert (answer.status, answer.headers["x-latchkey-key"]) == (204, partner.access_key)


@pytest.mark.parametrize(
    "headers, uri, code",
    [
        pytest.param([("x-api-key", "{}x")], "/orders", "unauthenticated", id="wrong"),
        pytest.param([("x-api-key", "Bearer {}")], "/orders", "unauthenticated", id="with the scheme"),
        pytest.param([("x-api-key", "{}"), ("api-key", "{}")], "/orders", "unauthenticated", id="in two headers"),
        pytest.param([("x-api-key", "{}"), ("authorization", "Bearer {}")], "/orders", "two_credentials", id="and a bearer"),
        pytest.param([("x-key", "{}")], "/orders", "unauthenticated", id="in a header without the name"),
        pytest.param([], "/orders?x-api-key={}", "unauthenticated", id="in the query"),
    ],
)  # fmt: skip
async def test_any_other_place_is_refused(
    app: Starlette, partner: HeldKey, headers: Headers, uri: str, code: str
) -> None:
    sent = [(name, value.format(partner.secret)) for name, value in headers]

    answer = await ask(app, "GET", uri.format(partner.secret), headers=sent)

    assert_problem(answer, 400 if code == "two_credentials" else 401, code)
    if code == "unauthenticated":
        assert 'header="X-API-Key"' in answer.headers["www-authenticate"]
