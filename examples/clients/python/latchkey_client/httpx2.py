"""`LatchkeyAuth` for `httpx2`."""

import httpx2

from latchkey_client.httpx_flow import SigningFlow


class LatchkeyAuth(SigningFlow, httpx2.Auth):
    """The argument `auth=` of an `httpx2.Client` or `httpx2.AsyncClient`."""
