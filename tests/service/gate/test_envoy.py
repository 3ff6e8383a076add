"""`/v1/gate/envoy`: Envoy keeps the method, the host and the headers of a request, and appends its URI to a prefix."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.requests import Answer
from tests.service.gate.asking import CLIENT, HOST, signed_by_message, signed_by_query

RULES = """
[[rules]]
hosts = ["api.example.com"]
methods = ["GET"]
paths = ["/orders/**"]
scope = "orders:read"

[[rules]]
hosts = ["api.example.com"]
methods = ["POST"]
paths = ["/orders/**"]
scope = "orders:write"
"""
BODY = b"name=Ann"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "gate.toml"
    file.write_text(RULES)
    return msgspec.structs.replace(settings, gate_rules=str(file), trusted_proxies="127.0.0.0/8")


async def ask(
    app: Starlette,
    method: str,
    uri: str,
    *,
    headers: list[tuple[str, str]],
    body: bytes | None = None,
    target: str = "/v1/gate/envoy?uri=",
    **others: str | None,
) -> Answer:
    """Ask as Envoy does; None leaves a header out."""
    of_envoy = {
        "host": HOST,
        "x-original-for": CLIENT,
        "x-forwarded-proto": "https",
        "x-forwarded-for": "203.0.113.9,10.0.0.1",
        **{name.replace("_", "-"): value for name, value in others.items()},
    }
    sent = [(name, value) for name, value in of_envoy.items() if value is not None]
    return await call(app, method, target + uri, headers=[*sent, *headers], body=body)


@pytest.fixture
async def partner(app: Starlette) -> HeldKey:
    return await hold_key(
        app, email="partner@example.com", scopes=["orders:read"], allowed_networks=[f"{CLIENT}/32"]
    )


async def test_a_permission_is_a_200(app: Starlette, partner: HeldKey) -> None:
    """Envoy takes any other status for a refusal."""
    answer = await ask(app, "GET", "/orders/7?a=1&uri=/x", headers=[partner.bearer])

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["x-latchkey-key"] == partner.access_key


@pytest.mark.parametrize("sign", [signed_by_query, signed_by_message])
async def test_a_signed_request_with_its_body_is_permitted(app: Starlette, sign: Any) -> None:
    signer = await hold_key(app, scopes=["orders:*"], mode="signed")
    asked = sign(app, signer, "POST", "/orders", BODY, nonce="n" * 16)

    other = await ask(app, **asked, body=b"name=Bob")
    answer = await ask(app, **sign(app, signer, "POST", "/orders", BODY, nonce="m" * 16), body=BODY)

    assert_problem(other, 401, "digest_mismatch")
    assert answer.status == 200


@pytest.mark.parametrize(
    "asked, status, code",
    [
        pytest.param({"method": "POST"}, 403, "scope_missing", id="another method"),
        pytest.param({"host": "example.org"}, 403, "no_gate_rule", id="another host"),
        pytest.param({"uri": "/orders/../x"}, 400, "ambiguous_request", id="two readings"),
        pytest.param({"uri": "*"}, 400, "ambiguous_request", id="no path"),
        pytest.param({"x_original_for": "192.0.2.8"}, 403, "network_not_allowed", id="another client"),
        pytest.param({"x_original_for": None}, 400, "gate_request_invalid", id="no client"),
        pytest.param({"x_forwarded_proto": None}, 400, "gate_request_invalid", id="no scheme"),
        pytest.param({"target": "/v1/gate/envoy"}, 404, "not_found", id="another prefix"),
        pytest.param({"target": "/v1/gate/envoy?"}, 400, "gate_request_invalid", id="another query"),
        pytest.param({"headers": []}, 401, "unauthenticated", id="no credential"),
    ],
)
async def test_any_other_request_is_refused(
    app: Starlette, partner: HeldKey, asked: dict[str, Any], status: int, code: str
) -> None:
    answer = await ask(app, **{"method": "GET", "uri": "/orders", "headers": [partner.bearer], **asked})

    assert_problem(answer, status, code)


async def test_headers_of_the_client_describe_nothing(app: Starlette, partner: HeldKey) -> None:
    spoofed = [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/orders"), ("x-forwarded-host", HOST)]

    answer = await ask(app, "GET", "/other", headers=[partner.bearer, *spoofed])
    twice = await ask(app, "GET", "/orders", headers=[partner.bearer, ("x-original-for", CLIENT)])

    assert_problem(answer, 403, "no_gate_rule")
    assert_problem(twice, 400, "gate_request_invalid")
