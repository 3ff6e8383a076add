"""Headers that depend on the request are added to every answer, whichever part sends it."""

import pytest
from starlette.types import Receive, Scope, Send

from latchkey.middleware.answer_headers import AnswerHeadersMiddleware
from tests.middleware.asgi import OTHER_SCOPES, answering, http, passes_untouched, run, untouched

NOTICE = (b"notice", b"on the way")


async def noticed(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [NOTICE] if scope.get("seen") else []


@pytest.mark.parametrize("status", [200, 403, 500])
async def test_headers_from_the_state_are_on_the_answer(status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["seen"] = True
        await answering(status, headers=[(b"x", b"1")])(scope, receive, send)

    sent, _ = await run(AnswerHeadersMiddleware(app, headers=noticed), http())

    assert sent[0]["status"] == status
    assert all("headers" not in message for message in sent[1:])
    assert list(sent[0]["headers"]) == [(b"x", b"1"), NOTICE]


async def test_no_header_is_added_without_state() -> None:
    sent, _ = await run(
        AnswerHeadersMiddleware(answering(200, headers=[(b"x", b"1")]), headers=noticed), http()
    )

    assert list(sent[0]["headers"]) == [(b"x", b"1")]


@pytest.mark.parametrize("scope", OTHER_SCOPES, ids=lambda scope: scope["type"])
async def test_other_scopes_than_http_pass_untouched(scope: dict[str, str]) -> None:
    middleware = AnswerHeadersMiddleware(untouched, headers=lambda _: pytest.fail("nobody asked"))

    assert await passes_untouched(middleware, dict(scope))
