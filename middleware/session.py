"""One request, one task, one database session (R1 to R7)."""

import asyncio
import logging
from asyncio import current_task
from collections.abc import Callable, MutableMapping
from typing import Any

from sqlalchemy.ext.asyncio import async_scoped_session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.completion import complete
from latchkey.middleware.request_scope import ManagedSession, RequestScope
from latchkey.middleware.session_errors import SettledSessionError, StreamTimeoutError

log = logging.getLogger("latchkey.session")


STREAM_TIMEOUT_S = 30.0


class StateWithSession(dict[str, Any]):
    """The dict of `scope["state"]`, which raises an explanation for `session` once the response has started."""

    def __missing__(self, key: str) -> Any:
        if key == "session":
            raise SettledSessionError
        raise KeyError(key)


class SessionMiddleware:
    """Give every HTTP request one session, and settle it before the first byte of the response is sent.

    The session is opened with `async with scoped_session()`, stored as `request.state.session`, and removed from the
    registry however the request ends. When the response starts, pending work is committed if the status is below 400,
    and rolled back otherwise; only then is the start sent. So no 2xx is sent for a row that was not committed, and a slow
    client holds no connection.

    The middleware does not manage WebSockets, because they live too long for one session. All middleware between this one
    and the endpoint must stay in the request's task: one that runs the endpoint in another task gives it another session.

    Args:
        scoped_session: an `async_scoped_session` whose scope is the task and whose sessions are
            `latchkey.service.database.session.RequestSession`.
        problem: returns the ASGI application that answers an exception of the database, or None for any other exception.
        stream_timeout_s: the maximum time, in total, to wait for the client while a body that reads a stream of rows
            holds a connection; after it the response is cut.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        scoped_session: async_scoped_session[Any],
        problem: Callable[[Exception], ASGIApp | None],
        stream_timeout_s: float = STREAM_TIMEOUT_S,
    ) -> None:
        self.app = app
        self.scoped_session = scoped_session
        self.problem = problem
        self.stream_timeout_s = stream_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        registry: dict[Any, Any] = self.scoped_session.registry.registry
        task = current_task()
        if task is None or task in registry:
            raise RuntimeError(
                "this task already has a session: run every request in its own task, as a server does."
            )
        try:
            with RequestScope(task) as request_scope:
                async with self.scoped_session() as session:
                    state = scope["state"] = StateWithSession(scope.get("state") or {}, session=session)
                    settle = SettlingSend(
                        request_scope, state, registry, BoundedSend(send, self.stream_timeout_s)
                    )
                    try:
                        await self._serve(scope, releasing(receive, request_scope), settle, session)
                    finally:
                        if request_scope.close():
                            await complete(request_scope.finish())
                        await session.end()
        finally:
            registry.pop(task, None)

    async def _serve(
        self, scope: Scope, receive: Receive, settle: "SettlingSend", session: ManagedSession
    ) -> None:
        try:
            await self.app(scope, receive, settle)
            failure = settle.failure
        except Exception as error:
            if settle.started:
                raise
            failure = settle.failure or error
        if failure is None:
            return
        try:
            await session.rollback()
        except Exception as error:  # noqa: BLE001 - the failure that is answered is logged in full
            log.warning(
                "the rollback failed too, and the connection is dropped: %s", getattr(error, "orig", error)
            )
        answer = self.problem(failure)
        if answer is None:
            try:
                raise failure
            finally:
                del failure  # a reference cycle with this frame would wait for the garbage collector
        await answer(scope, receive, settle.send)


def releasing(receive: Receive, request_scope: RequestScope) -> Receive:
    """Wrap `receive` so that no connection is held while it waits for a part of the body (R5)."""
    awaited = True

    async def wait() -> Message:
        nonlocal awaited
        if awaited:
            await request_scope.release_connection()
        message = await receive()
        awaited = message.get("more_body", False)
        return message

    return wait


class BoundedSend:
    """The `send` of one request, with a bound on the time that the client is waited for while a connection is held (R5)."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self.send = send
        self.timeout_s = timeout_s
        self.waited_s = 0.0

    async def __call__(self, message: Message, *, holds_connection: bool = False) -> None:
        """Send a part of the response.

        Raises:
            StreamTimeoutError: sending took too long, in total, while a connection was held.
        """
        with RequestScope.outside():
            if holds_connection:
                await self._send_within_bound(message)
            else:
                await self.send(message)

    async def _send_within_bound(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self.timeout_s - self.waited_s) as bound:
                await self.send(message)
        except TimeoutError:
            if bound.expired():
                raise StreamTimeoutError(self.timeout_s) from None
            raise
        finally:
            self.waited_s += loop.time() - began


class SettlingSend:
    """The `send` of one request, which settles the session before the response starts (R4).

    After a failed commit nothing more of the application's response is sent: the client gets only the problem, even if the
    application continues to send.
    """

    def __init__(
        self,
        request_scope: RequestScope,
        state: StateWithSession,
        registry: MutableMapping[Any, Any],
        send: BoundedSend,
    ) -> None:
        self.request_scope = request_scope
        self.state = state
        self.registry = registry
        self.send = send
        self.started = False
        self.failure: Exception | None = None

    async def __call__(self, message: Message) -> None:
        """Settle at the start of the response, and release the connections of a streamed body before each part of it."""
        if self.failure is not None:
            return
        if message["type"] == "http.response.start":
            try:
                await self.request_scope.settle(message["status"])
            except Exception as error:
                self.failure = error
                raise
            self.registry.pop(self.request_scope.task, None)
            self.state.pop("session", None)
            self.started = True
        else:
            await self.request_scope.release_late_connections(is_last=not message.get("more_body", False))
        await self.send(message, holds_connection=self.request_scope.is_streaming)
