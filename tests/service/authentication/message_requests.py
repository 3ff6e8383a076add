"""Signed messages as a test needs them, right or wrong."""

import base64
import hashlib
import hmac
from typing import Any

import msgspec

from latchkey.service.authentication.wire.credentials import AccessKey, Secret
from latchkey.service.authentication.wire.extraction import Unauthenticated
from latchkey.service.authentication.wire.message_signature import (
    MessageSignature,
    component_values,
    is_current,
    missing_coverage,
    parse,
    proves,
)

ACCESS_KEY = AccessKey("lka_0000000000000000000000")


SECRET = Secret("lks_00000000000000000000000000000000000000000003GTfko")


NOW = 1_700_000_000


NONCE = "n0nce-0123456789abcdef"


BODY = b'{"sku":"A1","qty":2}'


DIGEST = "sha-256=:ERL47/EOLw6RtheS54OgHs/od+QhRqhIwql2BA+1A9Q=:"


OTHER_DIGEST = f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"


IDEMPOTENCY_KEY = '"8e03978e-40d5-43e8-bc93-6894a57f9324"'


PLAIN = '"@method" "@authority" "@path" "@query"'


FULL = f'{PLAIN} "content-type" "content-digest" "idempotency-key"'


CREATED, KEYID, NONCED = f"created={NOW}", f'keyid="{ACCESS_KEY}"', f'nonce="{NONCE}"'


TAGGED = 'tag="latchkey-v1"'


PARAMETERS = f";{CREATED};{KEYID};{NONCED};{TAGGED}"


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it reaches the service."""

    method: str = "POST"
    scheme: str = "https"
    raw_path: bytes = b"/v1/orders"
    query_string: bytes = b"dry_run=true"
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = BODY

    def but(self, **changes: Any) -> "Sent":
        return msgspec.structs.replace(self, **changes)

    def values(self) -> dict[str, str]:
        return component_values(
            method=self.method,
            scheme=self.scheme,
            raw_path=self.raw_path,
            query_string=self.query_string,
            headers=self.headers,
        )

    def parsed(self) -> MessageSignature:
        return parse(self.headers, self.values())


def accepted(sent: Sent, secret: Secret = SECRET, now: float = NOW) -> bool:
    """Return whether all checks pass, in their order, including that of the body."""
    try:
        signature = sent.parsed()
    except Unauthenticated:
        return False
    return (
        not missing_coverage(signature, sent.values(), bool(sent.body))
        and proves(signature, secret)
        and is_current(signature, now, 60)
        and signature.content_sha256 == hashlib.sha256(sent.body).digest()
    )


def fields(headers: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())


def signed(
    components: str = FULL,
    parameters: str = PARAMETERS,
    values: dict[str, str] | None = None,
    **headers: str | None,
) -> Sent:
    """Return a signature of any content, right or wrong, so that only the shape can be the reason of a refusal."""
    own: dict[str, str | None] = {
        "content-type": "application/json",
        "content-digest": DIGEST,
        "idempotency-key": IDEMPOTENCY_KEY,
    }
    own.update({name.replace("_", "-"): value for name, value in headers.items()})
    covered = {
        "@method": "POST",
        "@authority": "api.example.com",
        "@path": "/v1/orders",
        "@query": "?dry_run=true",
        **own,
        **(values or {}),
    }
    params = f"({components}){parameters}"
    lines = [f"{name}: {covered.get(name.strip(chr(34)), '')}" for name in components.split(" ")]
    proof = mac("\n".join([*lines, f'"@signature-params": {params}']))
    sent = {
        "host": "api.example.com",
        **own,
        "signature-input": f"sig1={params}",
        "signature": f"sig1=:{proof}:",
    }
    return Sent(headers=fields({name: value for name, value in sent.items() if value is not None}))


def replaced(sent: Sent, **headers: str) -> Sent:
    """Return the request with other values in some of its headers."""
    changed = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return sent.but(headers=tuple((name, changed.get(name, value)) for name, value in sent.headers))


def mac(base: str, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), base.encode(), "sha256")).decode()


INPUT = f"sig1=({FULL}){PARAMETERS}"


PROOF = dict(signed().headers)[b"signature"].decode().removeprefix("sig1=:").removesuffix(":")
