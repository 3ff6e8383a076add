"""The time that a client may take to send its body."""

import asyncio
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.body_deadline import BodyDeadlineMiddleware, BodyTimeoutError
from tests.middleware.asgi import (
    OTHER_SCOPES,
    Reading,
    answering,
    http,
    passes_untouched,
    status_of,
    untouched,
)

TIMEOUT_S = 0.2


def timed(app: ASGIApp) -> ASGIApp:
    return BodyDeadlineMiddleware(app, timeout_s=TIMEOUT_S, problem=answering(408))


async def run(app: ASGIApp, *pauses_s: Any) -> list[Message]:
    """Send one byte after each pause; after the last one only the end of the connection follows."""
    left, sent = list(pauses_s), []

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        await asyncio.sleep(left.pop(0))
        return {"type": "http.request", "body": b"x", "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(http(), receive, send)
    return sent


@pytest.mark.parametrize(
    "pauses_s",
    [
        pytest.param([60], id="nothing comes"),
        pytest.param([0, 60], id="a part comes"),
        pytest.param([TIMEOUT_S / 10] * 600, id="a byte comes now and then"),
    ],
)
async def test_a_body_that_takes_too_long_is_refused(pauses_s: list[Any]) -> None:
    began = asyncio.get_running_loop().time()

    sent = await run(timed(Reading()), *pauses_s)

    assert status_of(sent) == 408
    assert asyncio.get_running_loop().time() - began < TIMEOUT_S + 1


async def test_a_body_in_time_is_handed_on() -> None:
    inner = Reading()

    sent = await run(timed(inner), 0.02, 0.02, 0.02)

    assert (status_of(sent), inner.body) == (200, b"xxx")


async def test_the_time_of_the_endpoint_is_not_the_clients() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(TIMEOUT_S * 1.5)
        await Reading()(scope, receive, send)

    assert status_of(await run(timed(slow), 0.02, 0.02)) == 200


async def test_after_the_body_the_client_may_stay_as_long_as_it_likes() -> None:
    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        gone = await receive()
        await answering(200 if gone["type"] == "http.disconnect" else 500)(scope, receive, send)

    async def receive(left: list[float] = [0, TIMEOUT_S * 2]) -> Message:  # noqa: B006 - for this one request
        await asyncio.sleep(left.pop(0))
        return {"type": "http.request", "body": b""} if left else {"type": "http.disconnect"}

    sent = []

    async def send(message: Message) -> None:
        sent.append(message)

    await timed(waiting)(http(), receive, send)

    assert status_of(sent) == 200


async def test_after_the_start_of_an_answer_the_error_goes_on() -> None:
    with pytest.raises(BodyTimeoutError):
        await run(timed(Reading(started=True)), 60)


async def test_two_requests_are_timed_apart() -> None:
    app = timed(Reading())

    for _ in range(3):
        assert status_of(await run(app, TIMEOUT_S / 2)) == 200


@pytest.mark.parametrize("scope", OTHER_SCOPES, ids=lambda scope: scope["type"])
async def test_other_scopes_than_http_pass_untouched(scope: dict[str, str]) -> None:
    assert await passes_untouched(timed(untouched), dict(scope))
