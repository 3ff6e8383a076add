"""The body must be the one that was signed."""

import hashlib
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.middleware.content_digest import ContentDigestMiddleware
from tests.middleware.asgi import (
    OTHER_SCOPES,
    Reading,
    answering,
    http,
    passes_untouched,
    run,
    status_of,
    untouched,
)


def checked(app: ASGIApp, body: Any) -> ASGIApp:
    """Expect the digest of `body`; None expects none."""
    digest = None if body is None else hashlib.sha256(body).digest()
    return ContentDigestMiddleware(app, expected=lambda _: digest, problem=answering(401))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"abc"], id="in one part"),
        pytest.param([b"a", b"", b"bc"], id="in many"),
        pytest.param([b""], id="empty"),
    ],
)
async def test_the_signed_body_is_handed_on_in_one_part(parts: list[bytes]) -> None:
    inner = Reading()

    sent, _ = await run(checked(inner, b"".join(parts)), http(), parts)

    assert status_of(sent) == 200
    assert inner.messages == [{"type": "http.request", "body": b"".join(parts), "more_body": False}]


@pytest.mark.parametrize("parts", [[b"abd"], [b"ab"], [b"abc", b"d"], [b""]], ids=str)
async def test_another_body_is_refused_before_anybody_sees_it(parts: list[bytes]) -> None:
    inner = Reading()

    sent, _ = await run(checked(inner, b"abc"), http(), parts)

    assert status_of(sent) == 401
    assert inner.messages == []


async def test_a_body_is_checked_where_nobody_reads_it() -> None:
    sent, _ = await run(checked(answering(), b""), http(), [b"abc"])

    assert status_of(sent) == 401


async def test_a_body_that_no_signature_covers_is_not_read() -> None:
    sent, left = await run(checked(answering(), None), http(), [b"abc"])

    assert status_of(sent) == 200
    assert left == [b"abc"]


async def test_after_the_body_the_client_is_heard_again() -> None:
    """An application that streams an answer waits there for the client to disconnect."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])

    await run(checked(app, b"abc"), http(), [b"abc"])

    assert [message["type"] for message in seen] == ["http.request", "http.disconnect"]


async def test_a_client_that_goes_away_within_its_body_is_answered_nothing() -> None:
    inner = Reading()

    with pytest.raises(ClientDisconnect):
        await run(checked(inner, b"abc"), http(), [b"a", None])

    assert inner.messages == []


@pytest.mark.parametrize("scope", OTHER_SCOPES, ids=lambda scope: scope["type"])
async def test_other_scopes_than_http_pass_untouched(scope: dict[str, str]) -> None:
    assert await passes_untouched(checked(untouched, b"abc"), dict(scope))
