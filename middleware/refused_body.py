"""The response to a request whose body is refused while it is read."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def run_or_refuse(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, error: type[Exception], problem: ASGIApp
) -> None:
    """Run an application whose `receive` may raise `error`, and answer with `problem` when it does.

    The middlewares inside roll the request back. Once the response has started it cannot be replaced, so the error is
    raised.
    """
    started = False

    async def watch(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await app(scope, receive, watch)
    except error:
        if started:
            raise
        await problem(scope, receive, send)
