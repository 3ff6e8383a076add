"""Requests of a proxy to the gate."""

from typing import Any

from starlette.applications import Starlette

from latchkey.service.authentication.wire.message_signature import sign_message
from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.gate.in_force import RulesInForce
from latchkey.service.gate.rules import parse_rules
from tests.api import Headers, HeldKey, call
from tests.requests import Answer

HOST = "api.example.com"
CLIENT = "192.0.2.7"
GATE, NGINX, ENVOY = "/v1/gate", "/v1/gate/nginx", "/v1/gate/envoy"
OF_ENVOY = (("host", HOST), ("x-original-for", CLIENT), ("x-forwarded-proto", "https"))
FAMILIES = {GATE: "x-forwarded-", NGINX: "x-original-"}


def described(
    method: str | None, uri: str | None, *, family: str = "x-forwarded-", **others: str | None
) -> list[tuple[str, str]]:
    """Return the headers with which a proxy describes a request; None leaves one out."""
    values = {"method": method, "uri": uri, "host": HOST, "proto": "https", **others}
    found = [
        (family + name.replace("_", "-"), value)
        for name, value in values.items()
        if value is not None and name != "client"
    ]
    client = others.get("client", CLIENT)
    return found if client is None else [*found, ("x-forwarded-for", client)]


async def ask(
    app: Starlette,
    method: str | None,
    uri: str | None,
    *,
    key: HeldKey | None = None,
    headers: Headers = (),
    gate: str = GATE,
    asked_by: str = "GET",
    body: bytes | None = None,
    **others: Any,
) -> Answer:
    """Ask the gate about a request, as a proxy that keeps the method of the original or does not."""
    if gate == ENVOY:
        credential = [] if key is None else [key.bearer]
        return await call(
            app, method or "", f"{ENVOY}?uri={uri}", headers=[*OF_ENVOY, *headers, *credential], body=body
        )
    sent = [*described(method, uri, family=FAMILIES[gate], **others), *headers]
    if key is not None:
        sent.append(key.bearer)
    return await call(app, asked_by, gate, headers=sent, body=body)


def put_in_force(app: Starlette, rules: bytes) -> None:
    """Replace the rules of the file; the stored ones are read once."""
    app.state.latchkey.gate.rules = RulesInForce(
        parse_rules(rules), lambda: app.state.db.reader, clock=lambda: 0.0
    )


def signed_by_query(
    app: Starlette, key: HeldKey, method: str, path: str, body: bytes | None = None, **others: Any
) -> dict[str, Any]:
    """Return the URI and the headers of a request that is signed in its query."""
    query, mac = sign_query(
        key.secret, "a=1", key.access_key, app.state.latchkey.verifier.clock(), method=method, path=path,
        body=body, **others,
    )  # fmt: skip
    return {"method": method, "uri": f"{path}?{query}", "headers": [("secret", mac)]}


def signed_by_message(
    app: Starlette, key: HeldKey, method: str, path: str, body: bytes | None = None, *, nonce: str
) -> dict[str, Any]:
    """Return the URI and the headers of a request that is signed as a message."""
    headers = sign_message(
        key.secret, key.access_key, app.state.latchkey.verifier.clock(), method=method, scheme="https",
        authority=HOST, raw_path=path, query_string="a=1", nonce=nonce, body=body,
        content_type=None if body is None else "text/plain",
    )  # fmt: skip
    sent = [(name, value) for name, value in headers.items() if name.lower() != "host"]
    return {"method": method, "uri": f"{path}?a=1", "headers": sent}
