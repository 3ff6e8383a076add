"""A bound on the size of a body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.refused_body import run_or_refuse


class BodyTooLargeError(Exception):
    """An undeclared body went over the limit while it was being read."""


class BodyLimitMiddleware:
    """Refuse a body over `limit_bytes` with the ASGI application `problem`.

    A declared length is checked before anything else, so that an endpoint that reads no body does not run for a
    request that is refused afterwards. An undeclared body is counted while it is read. When it exceeds the limit,
    reading stops, the middlewares inside roll the request back, and `problem` answers it.
    """

    def __init__(self, app: ASGIApp, *, limit_bytes: int, problem: ASGIApp) -> None:
        self.app = app
        self.limit_bytes = limit_bytes
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._declared(scope) > self.limit_bytes:
            await self.problem(scope, receive, send)
            return
        read = 0

        async def count() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self.limit_bytes:
                    raise BodyTooLargeError
            return message

        await run_or_refuse(self.app, scope, count, send, error=BodyTooLargeError, problem=self.problem)

    @staticmethod
    def _declared(scope: Scope) -> int:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                # 20 digits are more than any limit; int() of a million of them would take a while.
                return int(value.lstrip(b"0")[:20] or b"0")
        return 0
