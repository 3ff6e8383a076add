"""Every response is noted once, with what the request has become."""

import pytest
from starlette.types import Receive, Scope, Send

from latchkey.middleware.answered import AnsweredMiddleware
from tests.middleware.asgi import OTHER_SCOPES, answering, http, passes_untouched, run, untouched


async def test_a_response_is_noted_before_it_is_sent() -> None:
    noted: list[tuple[str, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["seen"] = "by the application"

        async def sending(message: dict[str, object]) -> None:
            await send(message)
            assert noted == [("by the application", 403)]

        await answering(403)(scope, receive, sending)  # type: ignore[arg-type]

    sent, _ = await run(
        AnsweredMiddleware(app, note=lambda scope, status: noted.append((scope["seen"], status))), http()
    )

    assert sent[0]["status"] == 403
    assert noted == [("by the application", 403)]


@pytest.mark.parametrize("scope", OTHER_SCOPES, ids=lambda scope: scope["type"])
async def test_other_scopes_than_http_pass_untouched(scope: dict[str, str]) -> None:
    middleware = AnsweredMiddleware(untouched, note=lambda *_: pytest.fail("nothing was answered"))

    assert await passes_untouched(middleware, dict(scope))
