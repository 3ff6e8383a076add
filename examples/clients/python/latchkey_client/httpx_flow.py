"""The authentication of `httpx` and `httpx2`, which have the same interface."""

import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio

from latchkey_client.attempts import SigningAuth


class SigningFlow(SigningAuth):
    """Sign each call of a client, and repeat it as `Attempts` decides."""

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Sign a request of a `Client`."""
        request.read()
        url, attempts = request.url, self._attempts(request.method, request.headers)
        while True:
            self._sign(request, url)
            response = yield request
            wait_s = attempts.wait_s(response.status_code, response.headers)
            if wait_s is None:
                return
            response.read()  # which returns the connection to its pool while we wait
            time.sleep(wait_s)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Sign a request of an `AsyncClient`."""
        await request.aread()
        url, attempts = request.url, self._attempts(request.method, request.headers)
        while True:
            self._sign(request, url)
            response = yield request
            wait_s = attempts.wait_s(response.status_code, response.headers)
            if wait_s is None:
                return
            await response.aread()
            await anyio.sleep(wait_s)

    def _sign(self, request: Any, url: Any) -> None:
        signed, headers = self._signer.sign(request.method, str(url), request.headers, request.content)
        request.url = type(url)(signed)
        request.headers.update(headers)
