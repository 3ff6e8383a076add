"""The check runs once, before the endpoint, and may answer instead."""

from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from latchkey.middleware.refusal import RefusalMiddleware
from tests.requests import request


async def test_a_request_that_the_check_refuses_does_not_reach_the_endpoint() -> None:
    reached: list[str] = []

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        await PlainTextResponse("in")(scope, receive, send)

    async def refusal(scope: Scope) -> Response | None:
        return PlainTextResponse("out", 401) if scope["path"] == "/closed" else None

    checked = RefusalMiddleware(endpoint, refusal=refusal)
    answers = [await request(checked, "GET", path) for path in ("/open", "/closed")]

    assert [answer.body for answer in answers] == [b"in", b"out"]
    assert reached == ["/open"]


async def test_only_http_is_asked() -> None:
    seen: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def refusal(scope: Scope) -> None:
        raise AssertionError

    async def unused(*_: object) -> Any:
        raise AssertionError

    await RefusalMiddleware(inner, refusal=refusal)({"type": "websocket"}, unused, unused)

    assert seen == [{"type": "websocket"}]
