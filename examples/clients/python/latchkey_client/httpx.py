"""`LatchkeyAuth` for `httpx`."""

import httpx

from latchkey_client.httpx_flow import SigningFlow


class LatchkeyAuth(SigningFlow, httpx.Auth):
    """The argument `auth=` of an `httpx.Client` or `httpx.AsyncClient`."""
