"""An id for every request, and the last resort when nothing else has answered."""

import logging
import re
from contextvars import ContextVar
from random import getrandbits
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.excerpt import excerpt

log = logging.getLogger("latchkey.request")

request_id: ContextVar[str | None] = ContextVar("latchkey_request_id", default=None)
"""The id of the request that this context serves, for log lines."""

HEADER = b"x-request-id"
LONGEST_METHOD = 32
SHAPE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def printable_path(scope: Scope) -> str:
    """Return the path as received, percent escapes and all: a decoded one could forge a log line.

    A path may have 64 kB and a log line should not: the middle of a long one is left out.
    """
    raw: bytes | None = scope.get("raw_path")
    return excerpt(quote(scope["path"]) if raw is None else raw.decode("ascii", "backslashreplace"))


def printable_method(scope: Scope) -> str:
    """Return the method; some servers take any word for one, of any length."""
    return excerpt(scope["method"], LONGEST_METHOD)


def new_request_id() -> str:
    """Return an id for a request; unique is enough, it is no secret."""
    return f"{getrandbits(64):016x}"


class RequestIDMiddleware:
    """Take `X-Request-ID` from the client if it is well-formed, else make one; answer it, log with it.

    The outermost middleware that answers. An exception that gets here is logged once, with the id, and answered by
    `last_resort`, unless an answer had started: then it goes on to the server, which closes the connection.
    A client that went away while its body was being read is no error.
    """

    def __init__(self, app: ASGIApp, *, last_resort: ASGIApp) -> None:
        self.app = app
        self.last_resort = last_resort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request under its name."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = self._given(scope) or new_request_id()
        header = HEADER, name.encode()
        scope.setdefault("state", {})["request_id"] = name
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
        if len(given) == 1 and SHAPE.fullmatch(given[0]):
            return bytes(given[0]).decode()
        return None
