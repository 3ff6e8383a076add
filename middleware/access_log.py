"""Log one line for each request when it ends."""

import logging
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.request_id import printable_method, printable_path
from latchkey.middleware.request_state import request_state

log = logging.getLogger("latchkey.access")


class AccessLogMiddleware:
    """Log method, path, status, duration and caller of each request; the path has no query, which may be signed.

    The fields are in the record's `access` attribute, for a formatter to write. `claimed_access_key` is the key that a
    refused request names in `scope["state"]["claimed_key"]`: nothing proves that its sender holds it.

    Args:
        client: returns the client address of a request, which behind a proxy is not the peer of the connection;
            None when it is unknown.
    """

    def __init__(self, app: ASGIApp, *, client: Callable[[Scope], str | None]) -> None:
        self.app = app
        self.client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time one request."""
        if scope["type"] != "http" or not log.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0  # no response: the client left, or the task was cancelled

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        except ClientDisconnect:
            raise
        except Exception:
            status = status or 500
            raise
        finally:
            user = scope.get("user")
            fields = {
                "method": printable_method(scope),
                "path": printable_path(scope),
                "status": status,
                "duration_ms": round((time.perf_counter() - began) * 1000, 2),
                "client": self.client(scope),
                "access_key": user.identity if user is not None and user.is_authenticated else None,
                "claimed_access_key": request_state(scope).get("claimed_key"),
            }
            log.info("%(method)s %(path)s %(status)s %(duration_ms)sms", fields, extra={"access": fields})
