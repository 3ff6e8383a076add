"""Routes with an optional key: calls without a credential are accepted, and authenticated callers are known."""

from collections.abc import Sequence

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.service.authentication.state import call_state
from latchkey.service.authentication.wire.extraction import CredentialError, extract


class OptionalKeyMiddleware:
    """Let a request without any credential bypass the middleware of private routes.

    A request with a credential, even an ill-formed one, passes through that middleware: an invalid credential is refused,
    and never ignored. Both kinds of responses depend on the caller, so caches must not store them.

    Args:
        private: the middleware of private routes.
        key_headers: the names of headers that may carry a key, in lower case.
    """

    def __init__(
        self, app: ASGIApp, *, private: Sequence[Middleware], key_headers: frozenset[bytes] = frozenset()
    ) -> None:
        self.app = app
        self.key_headers = key_headers
        self.private = app
        for one in reversed(private):
            self.private = one.cls(self.private, *one.args, **one.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose the path of one request."""
        if scope["type"] == "http" and is_anonymous(scope, self.key_headers):
            scope["auth"], scope["user"] = AuthCredentials(), UnauthenticatedUser()
            call_state(scope)["is_private"] = True
            await self.app(scope, receive, send)
        else:
            await self.private(scope, receive, send)


def is_anonymous(scope: Scope, key_headers: frozenset[bytes]) -> bool:
    """Return whether a request has no credential at all."""
    try:
        return extract(scope["headers"], scope["query_string"], key_headers) is None
    except CredentialError:
        return False
