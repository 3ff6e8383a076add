"""Routes that anybody may call, and that know a caller who proves itself."""

from collections.abc import Sequence

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.service.authentication.wire.extraction import CredentialError, extract


class OptionalKeyMiddleware:
    """Take a request without any credential past the middleware of private routes.

    What carries a credential, whatever state that is in, goes through all of it: a wrong one is refused, and never
    answered as if it were not there. Both kinds of answers depend on who asks, so no cache keeps them.

    Args:
        private: the middleware of private routes.
    """

    def __init__(self, app: ASGIApp, *, private: Sequence[Middleware]) -> None:
        self.app = app
        self.private = app
        for one in reversed(private):
            self.private = one.cls(self.private, *one.args, **one.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose the way of one request."""
        if scope["type"] == "http" and is_anonymous(scope):
            scope["auth"], scope["user"] = AuthCredentials(), UnauthenticatedUser()
            scope["state"]["is_private"] = True
            await self.app(scope, receive, send)
        else:
            await self.private(scope, receive, send)


def is_anonymous(scope: Scope) -> bool:
    """Return whether a request carries no credential at all."""
    try:
        return extract(scope["headers"], scope["query_string"]) is None
    except CredentialError:
        return False
