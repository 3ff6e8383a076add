"""An id for every request, and the last resort for exceptions that nothing else has answered."""

import asyncio
import logging
import re
from collections.abc import Callable
from contextvars import ContextVar
from random import getrandbits
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.excerpt import excerpt, without_secrets
from latchkey.middleware.request_state import request_state

log = logging.getLogger("latchkey.request")

request_id: ContextVar[str | None] = ContextVar("latchkey_request_id", default=None)
"""The id of the request of this context, for log lines."""

HEADER = b"x-request-id"
LONGEST_METHOD = 32
SHAPE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def printable_path(scope: Scope) -> str:
    """Return the path as received, with its percent escapes: a decoded path could forge a log line.

    A path may have 64 kB; the middle of a long one is left out.
    """
    raw: bytes | None = scope.get("raw_path")
    return excerpt(quote(scope["path"]) if raw is None else raw.decode("ascii", "backslashreplace"))


def printable_method(scope: Scope) -> str:
    """Return the method, shortened: some servers accept any word of any length."""
    return excerpt(scope["method"], LONGEST_METHOD)


def new_request_id() -> str:
    """Return a new id for a request; it is unique, not secret."""
    return f"{getrandbits(64):016x}"


class RequestIDMiddleware:
    """Take `X-Request-ID` from the client if it is well-formed and no secret, or generate an id.

    The id is added to the response and to log lines.

    This is the outermost middleware that answers. An exception that reaches it is logged once, with the id, and answered
    by `last_resort`. If a response has started already, the exception is raised to the server, which closes the connection.
    A client that disconnects while its body is read is not an error.

    Args:
        last_resort: answers when nothing else has.
        interrupted: returns what answers a request that the server cancels before its response has started, as at the end
            of a shutdown; without it the cancellation is raised to the server.
    """

    def __init__(
        self, app: ASGIApp, *, last_resort: ASGIApp, interrupted: Callable[[Scope], ASGIApp] | None = None
    ) -> None:
        self.app = app
        self.last_resort = last_resort
        self.interrupted = interrupted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request under its id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = self._given(scope) or new_request_id()
        header = HEADER, name.encode()
        request_state(scope)["request_id"] = name
        token = request_id.set(name)
        started = False

        async def stamp(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                others = (pair for pair in message.get("headers", ()) if pair[0] != HEADER)
                message["headers"] = [*others, header]
                started = True
            await send(message)

        try:
            await self.app(scope, receive, stamp)
        except ClientDisconnect:
            log.info("the client went away before its request was complete")
        except asyncio.CancelledError:
            if started or self.interrupted is None:
                raise
            log.warning("%s %s was interrupted by the server", printable_method(scope), printable_path(scope))
            await self.interrupted(scope)(scope, receive, stamp)
        except Exception:
            log.exception("%s %s failed", printable_method(scope), printable_path(scope))
            if started:
                raise
            await self.last_resort(scope, receive, stamp)
        finally:
            request_id.reset(token)

    @staticmethod
    def _given(scope: Scope) -> str | None:
        given = [value for header, value in scope["headers"] if header == HEADER]
        if len(given) != 1 or not SHAPE.fullmatch(given[0]):
            return None
        text = bytes(given[0]).decode()
        return text if without_secrets(text) == text else None
