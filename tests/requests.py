"""One HTTP request as a server runs it: in a new task, with incoming and outgoing messages."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message


class Answer(msgspec.Struct):
    """The answer; `starts` counts the `http.response.start` messages."""

    status: int | None = None
    headers: dict[str, str] = {}
    body: bytes = b""
    starts: int = 0
    complete: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def converse(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    body: Any = None,
    headers: dict[str, str] | None = None,
    query: str = "",
    answer: Answer | None = None,
    on_message: Callable[[str], None] = lambda _kind: None,
    spec_version: str = "2.3",
) -> Answer:
    """Run the application once, in this task."""
    answer = answer or Answer()
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"host": "testserver", **({"content-type": "application/json"} if body is not None else {})}
    if content:
        sent["content-length"] = str(len(content))
    sent.update(headers or {})
    incoming: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> Message:
        on_message("receive")
        await asyncio.sleep(0)
        if incoming:
            return incoming.pop()
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        on_message(message["type"])
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            answer.starts += 1
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")
            answer.complete = not message.get("more_body", False)
        await asyncio.sleep(0)

    raw_path, _, _ = path.partition("?")
    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec_version},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw_path,
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        },
        receive,
        send,
    )
    return answer


async def request(app: ASGIApp, method: str, path: str, **kwargs: Any) -> Answer:
    """Run the application once, in a new task, as uvicorn does."""
    return await asyncio.create_task(converse(app, method, path, **kwargs))
