"""The authentication of `httpx` and `httpx2`, which have the same interface."""

import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import anyio

from latchkey_client.attempts import Attempts
from latchkey_client.signer import Form, Signer


class SigningFlow:
    """Sign each call of a client, and repeat it as `Attempts` decides.

    Args:
        access_key: the access key, `lka_…`.
        secret: the whole secret, `lks_…`.
        form: `"query"` puts the signature into the query and the header `secret`, `"message"` into headers.
        idempotent: False for routes that do not accept an `Idempotency-Key`.
        clock: returns the Unix time in seconds.
    """

    def __init__(
        self,
        access_key: str,
        secret: str,
        *,
        form: Form = "query",
        idempotent: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = Signer(access_key, secret, form=form, clock=clock)
        self._idempotent = idempotent

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Sign a request of a `Client`."""
        request.read()
        url, attempts = request.url, self._attempts(request)
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
        url, attempts = request.url, self._attempts(request)
        while True:
            self._sign(request, url)
            response = yield request
            wait_s = attempts.wait_s(response.status_code, response.headers)
            if wait_s is None:
                return
            await response.aread()
            await anyio.sleep(wait_s)

    def _attempts(self, request: Any) -> Attempts:
        return Attempts(self._signer, request.method, request.headers, idempotent=self._idempotent)

    def _sign(self, request: Any, url: Any) -> None:
        signed, headers = self._signer.sign(request.method, str(url), request.headers, request.content)
        request.url = type(url)(signed)
        request.headers.update(headers)
