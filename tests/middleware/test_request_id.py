"""Every request has an id, and an unhandled exception is answered and logged once."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchkey.middleware.request_id import RequestIDMiddleware, request_id
from tests.middleware.asgi import OTHER_SCOPES, answering, http, passes_untouched, run, status_of, untouched


@pytest.fixture(autouse=True)
def _audible(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("latchkey"), "propagate", True)
    caplog.set_level(logging.INFO, "latchkey")


def named(*values: Any) -> dict[str, Any]:
    return http(headers=[(b"x-request-id", value) for value in values])


def middleware(app: ASGIApp) -> ASGIApp:
    return RequestIDMiddleware(app, last_resort=answering(500))


def name_of(sent: list[Message]) -> bytes:
    value: bytes
    (value,) = (value for name, value in sent[0]["headers"] if name == b"x-request-id")
    return value


@pytest.mark.parametrize(
    "name",
    [b"a", b"visit-7", b"A.b_c-9", b"." * 64, b"0"],
)
async def test_a_well_formed_name_is_taken_and_answered(name: bytes) -> None:
    scope = named(name)

    sent, _ = await run(middleware(answering()), scope)

    assert name_of(sent) == name
    assert scope["state"]["request_id"] == name.decode()


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((), id="none"),
        pytest.param((b"",), id="empty"),
        pytest.param((b"a" * 65,), id="too long"),
        pytest.param((b"a b",), id="a blank"),
        pytest.param((b"a\n",), id="a newline at the end"),
        pytest.param((b"a\r\nset-cookie: x",), id="another header"),
        pytest.param((b"a/b",), id="a slash"),
        pytest.param((b'a"b',), id="a quote"),
        pytest.param(("é".encode(),), id="not ASCII"),
        pytest.param((b"\xff",), id="not UTF-8"),
        pytest.param((b"a", b"b"), id="two"),
        pytest.param((b"a", b"a"), id="the same twice"),
    ],
)
async def test_any_other_is_replaced_by_one_of_ours(names: tuple[Any, ...]) -> None:
    first, _ = await run(middleware(answering()), named(*names))
    second, _ = await run(middleware(answering()), named(*names))

    assert name_of(first) not in names
    assert name_of(first) != name_of(second)
    assert name_of(first).isalnum()
    assert len(name_of(first)) == 16


async def test_a_name_that_the_application_answers_is_replaced() -> None:
    sent, _ = await run(middleware(answering(headers=[(b"x-request-id", b"other")])), named(b"visit-7"))

    assert name_of(sent) == b"visit-7"


async def test_values_in_the_state_stay_there() -> None:
    scope = {**named(b"visit-7"), "state": {"pool": 1}}

    await run(middleware(answering()), scope)

    assert scope["state"] == {"pool": 1, "request_id": "visit-7"}


async def test_the_name_is_known_to_whoever_logs_meanwhile_and_only_then() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(request_id.get())
        seen.append(await asyncio.create_task(asyncio.to_thread(request_id.get)))
        await answering()(scope, receive, send)

    await run(middleware(app), named(b"visit-7"))

    assert seen == ["visit-7", "visit-7"]
    assert request_id.get() is None


@pytest.mark.parametrize("scope", OTHER_SCOPES, ids=lambda scope: scope["type"])
async def test_other_scopes_than_http_pass_untouched(scope: dict[str, str]) -> None:
    assert await passes_untouched(middleware(untouched), dict(scope))


async def test_an_exception_is_logged_once_and_answered_by_the_last_resort(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    sent, _ = await run(middleware(app), named(b"visit-7"))

    assert status_of(sent) == 500
    assert name_of(sent) == b"visit-7"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == "GET / failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert request_id.get() is None


async def test_an_exception_after_the_start_goes_on_to_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(middleware(app), named(b"visit-7"))

    assert len(caplog.records) == 1


async def test_a_client_that_went_away_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    sent, _ = await run(middleware(app), named(b"visit-7"))

    assert sent == []
    assert [record.levelname for record in caplog.records] == ["INFO"]


async def test_an_interrupted_request_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    interrupted = RequestIDMiddleware(
        app, last_resort=answering(500), interrupted=lambda _scope: answering(503)
    )
    sent, _ = await run(interrupted, named(b"visit-7"))

    assert sent[0]["status"] == 503
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_cancellation_goes_through(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run(middleware(app), named(b"visit-7"))

    assert caplog.records == []
    assert request_id.get() is None
