"""Clients of the application under test: Starlette's `TestClient`, which authenticates each request."""

from collections.abc import Generator
from typing import Any

from anyio.from_thread import BlockingPortal
from httpx2 import URL, Auth, Request, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from latchkey.service.client import Form, sign_call

Flow = Generator[Request, Response, None]


class BearerKey(Auth):
    """Sends the secret of a bearer key."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def auth_flow(self, request: Request) -> Flow:
        """Add the header."""
        request.headers["authorization"] = f"Bearer {self._secret}"
        yield request


class SigningKey(Auth):
    """Signs each request with a key, in one of the two forms."""

    requires_request_body = True

    def __init__(self, access_key: str, secret: str, form: Form) -> None:
        self._access_key = access_key
        self._secret = secret
        self._form = form

    def auth_flow(self, request: Request) -> Flow:
        """Sign method, URL and body, at the time of the application's clock."""
        call = sign_call(
            request.method,
            str(request.url),
            access_key=self._access_key,
            secret=self._secret,
            body=request.content or None,
            content_type=request.headers.get("content-type", "application/json"),
            form=self._form,
            idempotency_key=request.headers.get("idempotency-key"),
        )
        request.url = URL(call.url)
        request.headers.update(call.headers)
        yield request


class Client(TestClient):
    """A client of the application: `client.post("/v1/orders", json={...})`, as with Starlette's `TestClient`.

    Its key is in `auth`, which a client of `httpx2` in a process of its own can use as well.
    """

    def __init__(
        self, app: ASGIApp, portal: BlockingPortal, auth: Auth | None = None, **options: Any
    ) -> None:
        super().__init__(app, client=("127.0.0.1", 50_000), **options)
        self.portal = portal  # the event loop of the application, which all its clients share
        if auth is not None:
            self.auth = auth


class PartnerClient(Client):
    """A client with a key of its own, and the owner of the key."""

    user_id: int
    email: str
    access_key: str
    secret: str
