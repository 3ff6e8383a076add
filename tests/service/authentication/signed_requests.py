"""The callers in the tests of credentials, and how they forge requests."""

import base64
import hmac
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.types import ASGIApp

from latchkey.service.authentication.wire.credentials import new_access_key, new_secret
from tests.api import HeldKey, call
from tests.requests import Answer

NOW = 1_700_000_000
WINDOW_S = 60  # the default of LATCHKEY_CLOCK_WINDOW_S
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Attempt(msgspec.Struct, frozen=True):
    """A request as it is sent."""

    target: str = "/v1/me"
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    body: Any = None
    chunks: list[bytes] | None = None

    def adding(self, *headers: tuple[str, str], query: str = "") -> "Attempt":
        """Return the request with additional headers, and additional unsigned parameters."""
        return msgspec.structs.replace(self, headers=(*self.headers, *headers), target=self.target + query)

    async def send(self, app: ASGIApp, *more: tuple[str, str]) -> Answer:
        return await call(
            cast("Starlette", app),  # an unsigned call asks it for nothing
            self.method,
            self.target,
            headers=(*self.headers, *more),
            body=self.body,
            chunks=self.chunks,
        )


class HeldKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of each state; `unknown` is well-formed and has no row."""

    bearer: HeldKey
    signer: HeldKey
    revoked: HeldKey
    revoked_signer: HeldKey
    expired: HeldKey
    expired_signer: HeldKey
    blocked: HeldKey
    blocked_signer: HeldKey
    unscoped_signer: HeldKey
    rotated: HeldKey
    """A key that signs, with a new secret; the old one works too."""
    unknown: HeldKey

    @property
    def secrets(self) -> list[str]:
        return [getattr(self, name).secret for name in self.__struct_fields__]


MakeAttempt = Callable[[HeldKeys], Attempt]


def unknown_key() -> HeldKey:
    return HeldKey(id=0, user_id=0, access_key=new_access_key("lk"), secret=new_secret("lk"), mode="signed")


def header(name: str, value: str) -> Attempt:
    """Return a read of the caller with one header."""
    return Attempt(headers=((name, value),))


def bearer(key: HeldKey) -> Attempt:
    return Attempt(headers=(key.bearer,))


def mac(secret: str, text: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), text.encode("latin-1"), "sha256")).decode()


def signed(
    key: HeldKey,
    method: str = "GET",
    path: str = "/v1/me",
    /,
    *,
    proof: str | None = None,
    secret: str | None = None,
    behind: str = "",
    body: Any = None,
    chunks: list[bytes] | None = None,
    **parameters: str | None,
) -> Attempt:
    """Return a query signed as requested, right or wrong; a parameter of None is left out, `behind` is signed unchanged."""
    said = {"key": key.access_key, "timestamp": str(NOW), **parameters}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in said.items() if value is not None)
    query += behind
    proof = mac(secret or key.secret, query) if proof is None else proof
    return Attempt(f"{path}?{query}", (("secret", proof),), method, body, chunks)
