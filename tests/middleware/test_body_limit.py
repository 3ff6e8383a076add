"""The maximum size of a body."""

from typing import Any

import pytest
from starlette.types import ASGIApp

from latchkey.middleware.body_limit import BodyLimitMiddleware, BodyTooLargeError
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

LIMIT_BYTES = 10


def limited(app: ASGIApp) -> ASGIApp:
    return BodyLimitMiddleware(app, limit_bytes=LIMIT_BYTES, problem=answering(413))


def declaring(*lengths: Any) -> dict[str, Any]:
    return http(headers=[(b"content-length", length) for length in lengths])


@pytest.mark.parametrize(
    "length",
    [b"11", b"0000000011", b"0" * 40 + b"11", b"9" * 19, b"9" * 5000],
)
async def test_a_declared_length_over_the_limit_is_refused_before_anything_happens(length: bytes) -> None:
    inner = Reading()

    sent, left = await run(limited(inner), declaring(length), [b"x" * 11])

    assert status_of(sent) == 413
    assert inner.messages == []
    assert left == [b"x" * 11]


@pytest.mark.parametrize("length", [b"10", b"0", b"00000000000000000000000010"])
async def test_a_declared_length_up_to_the_limit_passes(length: bytes) -> None:
    inner = Reading()

    sent, _ = await run(limited(inner), declaring(length), [b"x" * int(length)])

    assert status_of(sent) == 200
    assert inner.body == b"x" * int(length)


@pytest.mark.parametrize(
    "parts, status",
    [
        pytest.param([b""], 200, id="none"),
        pytest.param([b"x" * 10], 200, id="the limit in one part"),
        pytest.param([b"x"] * 10, 200, id="the limit in many"),
        pytest.param([b"x" * 11], 413, id="over it in one part"),
        pytest.param([b"x"] * 11, 413, id="over it in many"),
        pytest.param([b"", b"x" * 10, b"", b"x"], 413, id="over it by the last"),
    ],
)
@pytest.mark.parametrize("lengths", [(), (b"5",), (b"-1",), (b"ten",), (b"",)], ids=str)
async def test_received_bytes_are_counted_whatever_was_declared(
    parts: list[bytes], status: int, lengths: tuple[Any, ...]
) -> None:
    sent, _ = await run(limited(Reading()), declaring(*lengths), parts)

    assert status_of(sent) == status


async def test_over_the_limit_reading_ends() -> None:
    sent, left = await run(limited(Reading()), http(), [b"x" * 11, b"never", b"read"])

    assert status_of(sent) == 413
    assert left == [b"never", b"read"]


async def test_after_the_start_of_an_answer_the_error_goes_on() -> None:
    with pytest.raises(BodyTooLargeError):
        await run(limited(Reading(started=True)), http(), [b"x" * 11])


async def test_a_body_that_nobody_reads_is_not_counted() -> None:
    sent, left = await run(limited(answering()), http(), [b"x" * 11])

    assert status_of(sent) == 200
    assert left == [b"x" * 11]


async def test_two_requests_are_counted_apart() -> None:
    app = limited(Reading())

    for _ in range(3):
        sent, _ = await run(app, http(), [b"x" * 9])
        assert status_of(sent) == 200


@pytest.mark.parametrize("scope", OTHER_SCOPES, ids=lambda scope: scope["type"])
async def test_other_scopes_than_http_pass_untouched(scope: dict[str, str]) -> None:
    assert await passes_untouched(limited(untouched), dict(scope))


async def test_a_client_that_leaves_within_its_body_is_reported_to_the_application() -> None:
    inner = Reading()

    await run(limited(inner), http(), [b"x", None])

    assert [message["type"] for message in inner.messages] == ["http.request", "http.disconnect"]
