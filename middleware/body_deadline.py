"""A bound on the time that a client may take to send its body."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.refused_body import run_or_refuse


class BodyTimeoutError(Exception):
    """The rest of the body did not arrive in time."""


class BodyDeadlineMiddleware:
    """Refuse a body that takes longer than `timeout_s` with the ASGI application `problem`.

    Only the time spent waiting for the client counts, and all waits for one body are added up: a client gains nothing by
    sending a byte now and then, and a slow endpoint costs a fast client nothing. After the deadline the middlewares
    inside roll the request back, and `problem` answers it; it should close the connection, because the rest of the
    body may still arrive.
    """

    def __init__(self, app: ASGIApp, *, timeout_s: float, problem: ASGIApp) -> None:
        self.app = app
        self.timeout_s = timeout_s
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time one body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        left_s = self.timeout_s
        complete = False

        async def wait() -> Message:
            nonlocal left_s, complete
            if complete:  # the body is complete: the application waits for the client to disconnect
                return await receive()
            began = clock()
            try:
                async with asyncio.timeout(left_s):
                    message = await receive()
            except TimeoutError:
                raise BodyTimeoutError from None
            left_s -= clock() - began
            complete = not message.get("more_body", False)
            return message

        await run_or_refuse(self.app, scope, wait, send, error=BodyTimeoutError, problem=self.problem)
