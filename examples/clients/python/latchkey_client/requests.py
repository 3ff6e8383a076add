"""`LatchkeyAuth` for `requests`."""

import time
from typing import Any

import requests
from requests.auth import AuthBase

from latchkey_client.attempts import Attempts, SigningAuth
from latchkey_client.signer import Signer


class LatchkeyAuth(SigningAuth, AuthBase):
    """The argument `auth=` of a call or a `requests.Session`: signs each call, and repeats it as `Attempts` decides."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a prepared request, and look at its response."""
        method, url = request.method or "GET", request.url or ""
        attempts = self._attempts(method, request.headers)
        request.hooks["response"].append(Repeat(self._signer, attempts, url))
        return signed(request, self._signer, url)


class Repeat:
    """A hook that sends a refused request again, as `HTTPDigestAuth` of requests does."""

    def __init__(self, signer: Signer, attempts: Attempts, url: str) -> None:
        self._signer, self._attempts, self._url = signer, attempts, url

    def __call__(self, response: Any, **options: Any) -> Any:
        """Return the response to the last attempt; the earlier ones are in its `history`."""
        while (wait_s := self._attempts.wait_s(response.status_code, response.headers)) is not None:
            _ = response.content  # which returns the connection to its pool while we wait
            time.sleep(wait_s)
            request = signed(response.request.copy(), self._signer, self._url)
            again = response.connection.send(request, **options)
            again.history = [*response.history, response]
            again.request = request
            response = again
        return response


def signed(request: requests.PreparedRequest, signer: Signer, url: str) -> requests.PreparedRequest:
    """Sign a request for its original URL; its body must be bytes or text."""
    body = request.body or b""
    content = body.encode() if isinstance(body, str) else body
    if not isinstance(content, bytes):
        raise TypeError("The body must be bytes or text: a stream cannot be signed.")
    request.url, headers = signer.sign(request.method or "GET", url, request.headers, content)
    request.headers.update(headers)
    return request
