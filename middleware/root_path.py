"""The path under which a proxy publishes the application, and which it strips from the requests that it passes on."""

from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

root_path: ContextVar[str] = ContextVar("latchkey_root_path", default="")
"""The root path of the current request; empty without one."""


def path_in_app(scope: Scope) -> str:
    """Return the path of a request as the routes have it, without the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class RootPathMiddleware:
    """Put the root path in front of the path of each request, as the client has sent it, and of each `Location`.

    Signatures and links then use the client's own URL. A server that was told the root path itself, such as
    `uvicorn --root-path`, does the first part already.

    Args:
        app: the application.
        path: the root path, as `/partners`; empty if there is none.
    """

    def __init__(self, app: ASGIApp, *, path: str = "") -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.path and not scope.get("root_path"):
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            scope.update(
                root_path=self.path, path=self.path + scope["path"], raw_path=self.path.encode() + raw
            )
        found: str = scope.get("root_path", "")
        if not found:
            await self.app(scope, receive, send)
            return

        async def publish_location(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (
                        name,
                        public_path(value.decode("latin-1")).encode("latin-1")
                        if name == b"location"
                        else value,
                    )
                    for name, value in message["headers"]
                ]
            await send(message)

        token = root_path.set(found)
        try:
            await self.app(scope, receive, publish_location)
        finally:
            root_path.reset(token)


def public_path(location: str) -> str:
    """Return a path, or the value of a `Location`, as clients use it; a URL, or a path with the root path, is unchanged."""
    root = root_path.get()
    is_path = location.startswith("/") and not location.startswith("//")
    return root + location if is_path and not location.startswith(f"{root}/") else location
