"""No known secret is anywhere but where it is shown once: not in a log line, an answer, an event or the database.

A secret is searched for as it is, in hexadecimal, percent-encoded, and in base64 at each of the three positions.
"""

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette

from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call
from tests.conftest import KEYRING
from tests.receiver import Receiver
from tests.requests import Answer
from tests.service.gate.asking import described
from tests.service.test_secrecy import written
from tests.service.webhooks.conftest import delivering, receiver
from tests.service.webhooks.rows import wait_for_status

__all__ = ["delivering", "receiver"]

GATE = "127.0.0.0/8"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings,
        pool_size=5,
        key_headers="x-api-key",
        trusted_proxies=GATE,
        webhook_networks=GATE,
        webhook_http="allow",
        leak_grace_s=3600,
    )


def forms(secret: bytes) -> Iterator[bytes]:
    """Yield the forms in which a secret could be written somewhere."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield quote(secret, safe="").encode()
    for position in range(3):
        # The characters of base64 that no neighbour of the secret changes.
        encoded = base64.b64encode(b"\0" * position + secret)
        sure = encoded[-(-position * 8 // 6) : (position + len(secret)) * 8 // 6]
        yield sure
        yield sure.translate(bytes.maketrans(b"+/", b"-_"))


def found_in(place: bytes, secrets: dict[str, bytes]) -> list[str]:
    """Return the names of the secrets that a place holds in any form."""
    return [name for name, secret in secrets.items() if any(form in place for form in forms(secret))]


def test_a_secret_is_found_in_every_form() -> None:
    secret = b"lks_3WvQ?/+ksd"
    hiding = [
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        quote(secret, safe="").encode(),
        *(base64.b64encode(b"abc"[:length] + secret + b"xyz") for length in range(4)),
        *(base64.urlsafe_b64encode(b"abc"[:length] + secret) for length in range(4)),
    ]

    assert [found_in(b"before" + one + b"after", {"it": secret}) for one in hiding] == [["it"]] * len(hiding)
    assert found_in(secret[1:] + secret[:-1].hex().encode(), {"it": secret}) == []


async def dump(engine: AsyncEngine) -> dict[str, bytes]:
    """Return all that the tables of a database hold, by their names."""
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda inside: inspect(inside).get_table_names())
        found = {}
        for table in tables:
            rows = (await connection.execute(text(f"SELECT * FROM {table}"))).all()
            found[table] = b"\n".join(
                value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row
            )
    return found


class Partner:
    """Calls that keep every answer, and the secrets that some of them show once."""

    def __init__(self, app: Starlette, operator: HeldKey) -> None:
        self.app = app
        self.operator = operator
        self.secrets = {"the operator's": operator.secret.encode()}
        self.answers: dict[str, bytes] = {}

    async def call(self, method: str, target: str, **options: Any) -> Answer:
        """Make a call that shows no secret."""
        options.setdefault("key", self.operator)
        answer = await call(self.app, method, target, **options)
        name = f"{len(self.answers)} {method} {target[:40]}"
        self.answers[name] = repr(answer.headers).encode() + answer.body
        return answer

    async def shown(self, name: str, method: str, target: str, body: Any) -> dict[str, Any]:
        """Make a call that shows a secret once, and again as a replay that does not."""
        headers = [("idempotency-key", name.replace(" ", "-").replace("'", ""))]
        answer = await call(self.app, method, target, key=self.operator, body=body, headers=headers)
        content: dict[str, Any] = json.loads(answer.body)
        self.secrets[name] = content["secret"].encode()
        replay = await self.call(method, target, body=body, headers=headers)
        assert (replay.status, replay.json["secret"]) == (answer.status, None)
        return content

    def hold(self, content: dict[str, Any], mode: str) -> HeldKey:
        return HeldKey(
            id=0,
            user_id=self.operator.user_id,
            access_key=content["access_key"],
            secret=content["secret"],
            mode=mode,
        )


Delivering = Callable[[], AbstractAsyncContextManager[None]]


async def live(partner: Partner, receiver: Receiver) -> int:
    """Do with secrets what can be done with them, also what a confused partner does; return the id of the webhook."""
    new = {"user_id": partner.operator.user_id, "scopes": ["users:read"]}
    webhook = await partner.shown("a webhook's", "POST", "/v1/webhooks", {"url": receiver.url})
    of_webhook = f"/v1/webhooks/{webhook['id']}"
    await partner.shown("a webhook's second", "POST", f"{of_webhook}/rotate", {"grace_s": 60})
    bearer = partner.hold(
        await partner.shown("a bearer", "POST", "/v1/keys", {**new, "name": "b", "mode": "bearer"}), "bearer"
    )
    signing = partner.hold(
        await partner.shown("a signing", "POST", "/v1/keys", {**new, "name": "s", "mode": "signed"}), "signed"
    )
    for key in (bearer, signing):
        await partner.shown(
            f"a rotated {key.mode}", "POST", f"/v1/keys/{key.access_key}/rotate", {"grace_s": 60}
        )
        await partner.call("GET", "/v1/me", key=key)
        await partner.call("GET", f"/v1/keys/{key.access_key}")
    secret = bearer.secret
    for header in (("authorization", f"Bearer {secret}"), ("x-api-key", secret)):
        for uri in ("/orders", f"/orders?token={secret}", f"/{secret}"):
            asked = await partner.call("GET", "/v1/gate", key=None, headers=[header, *described("GET", uri)])
            assert_problem(asked, 403, "no_gate_rule")
    await partner.call("GET", of_webhook)
    await partner.call("POST", f"{of_webhook}/ping")
    await confuse(partner, secret, signing)
    for credential in (secret, secret[:-1], signing.secret):
        verified = {"credential": credential, "tags": []}
        answer = await partner.call("POST", "/v1/keys/verify", body=verified)
        assert answer.json["valid"] is (credential == secret)
        await partner.call("POST", "/v1/keys/verify-batch", body={"data": [verified]})
    found = [{"secret": one, "url": f"https://example.com/?q={one}"} for one in (secret, signing.secret)]
    reported = await partner.call(
        "POST", "/v1/leaks", body={"data": found}, headers=[("idempotency-key", "leak")]
    )
    assert [one["label"] for one in reported.json["data"]] == ["true_positive"] * 2
    await partner.call("DELETE", f"/v1/keys/{signing.access_key}")
    for path in (
        "/v1/keys",
        "/v1/webhooks",
        "/v1/audit?limit=100",
        f"{of_webhook}/deliveries",
        "/metrics",
        "/v1/me/usage",
    ):
        assert (await partner.call("GET", path)).status == 200
    webhook_id: int = webhook["id"]
    return webhook_id


async def confuse(partner: Partner, secret: str, signing: HeldKey) -> None:
    """Send a secret where none belongs."""
    for target in (f"/v1/keys/{secret}", f"/v1/me?secret={secret}", f"/{secret}", f"/v1/keys?cursor={secret}", f"/v1/users/{secret}",
                   f"/v1/me?{secret}=1", f"/v1/keys/%6Cks_{secret[4:]}", f"/v1/me?key={secret}&timestamp=1"):  # fmt: skip
        await partner.call("GET", target)
        await partner.call("GET", target, key=None)
    for header in (
        "secret",
        "authorization",
        "x-api-key",
        "cookie",
        "x-request-id",
        "traceparent",
        "user-agent",
        "signature",
        "signature-input",
    ):
        await partner.call("GET", "/v1/me", key=None, headers=[(header, secret)])
    await partner.call(
        "GET",
        "/v1/me",
        key=None,
        headers=[("authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")],
    )
    for body in (
        {secret: 1},
        {"email": secret, "name": 5},
        {"email": secret, "name": "n", "other": 1},
        f'{{"email": "{secret}"'.encode(),
        [secret],
    ):
        await partner.call(
            "POST", "/v1/users", body=body, headers=[("idempotency-key", f"confused{time.monotonic_ns()}")]
        )
    await partner.call(
        "POST",
        "/v1/users",
        body={"email": "x@example.com", "name": "x"},
        headers=[("idempotency-key", secret)],
    )
    await partner.call(
        "POST",
        "/v1/signatures/explain",
        body={
            "method": "GET",
            "url": f"https://api.example.com/v1/me?key={signing.access_key}&timestamp=1",
            "headers": {"secret": signing.secret},
        },
    )


def bytes_of_ring() -> bytes:
    return base64.b64decode(KEYRING.partition(":")[2])


async def test_known_secrets_are_nowhere_but_where_they_are_shown(
    app: Starlette,
    settings: Settings,
    operator: HeldKey,
    receiver: Receiver,
    delivering: Delivering,
    log_lines: list[logging.LogRecord],
) -> None:
    partner = Partner(app, operator)
    webhook_id = await live(partner, receiver)
    async with delivering():
        await wait_for_status(app, webhook_id, "delivered")
    await app.state.latchkey.usage.flush()

    secrets = {
        **partner.secrets,
        "the ring's": bytes_of_ring(),
        "the ring's text": KEYRING.partition(":")[2].encode(),
    }
    for name in ("a webhook's", "a webhook's second"):
        secrets[f"{name}, decoded"] = base64.b64decode(partner.secrets[name].removeprefix(b"whsec_"))
    password = make_url(settings.database_url).password
    if password:
        secrets["the database's"] = password.encode()
    places = {
        **partner.answers,
        "the log": written(log_lines).encode(),
        "events": b"\n".join(repr(one).encode() for one in receiver.requests),
        **await dump(app.state.db.reader),
    }
    assert len(secrets) >= 10
    assert {place: found for place, content in places.items() if (found := found_in(content, secrets))} == {}
