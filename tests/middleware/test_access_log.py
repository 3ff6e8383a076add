"""One line for each request, when it ends."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.authentication import SimpleUser, UnauthenticatedUser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.middleware.access_log import AccessLogMiddleware
from tests.middleware.asgi import OTHER_SCOPES, answering, http, passes_untouched, run, untouched


class Partner(SimpleUser):
    """A caller whose identity is an access key."""

    @property
    def identity(self) -> str:
        return "lka_1"


@pytest.fixture(autouse=True)
def _audible(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("latchkey"), "propagate", True)
    caplog.set_level(logging.INFO, "latchkey.access")


def peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client and client[0]


def failing(error: BaseException, *, started: bool = False) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that the middleware adds to a line."""
    return vars(record)["access"]


async def test_a_visit_is_one_line_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    scope = http(raw_path=b"/a%20b", query_string=b"key=lka_1", client=("10.0.0.1", 5), user=Partner("ann"))

    await run(AccessLogMiddleware(answering(201), client=peer), scope)

    (record,) = caplog.records
    duration = fields_of(record)["duration_ms"]
    assert 0 <= duration < 1000
    assert record.getMessage() == f"GET /a%20b 201 {duration}ms"
    assert fields_of(record) == {
        "method": "GET",
        "path": "/a%20b",
        "status": 201,
        "duration_ms": duration,
        "client": "10.0.0.1",
        "access_key": "lka_1",
        "claimed_access_key": None,
    }


@pytest.mark.parametrize("scope", [{}, {"user": UnauthenticatedUser()}, {"client": None}])
async def test_a_caller_without_an_identity_is_logged_as_none(
    caplog: pytest.LogCaptureFixture, scope: dict[str, Any]
) -> None:
    await run(AccessLogMiddleware(answering(), client=peer), http(**scope))

    (record,) = caplog.records
    assert (fields_of(record)["client"], fields_of(record)["access_key"]) == (None, None)


@pytest.mark.parametrize(
    "error, started, status",
    [
        pytest.param(ZeroDivisionError(), False, 500, id="an exception"),
        pytest.param(ZeroDivisionError(), True, 200, id="an exception after the start"),
        pytest.param(asyncio.CancelledError(), False, 0, id="a cancellation"),
        pytest.param(ClientDisconnect(), False, 0, id="a client that went away"),
    ],
)
async def test_a_visit_that_ends_badly_is_logged_and_goes_on(
    caplog: pytest.LogCaptureFixture, error: Any, started: bool, status: int
) -> None:
    with pytest.raises(type(error)):
        await run(AccessLogMiddleware(failing(error, started=started), client=peer), http())

    (record,) = caplog.records
    assert fields_of(record)["status"] == status


async def test_nothing_is_measured_while_the_log_is_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "latchkey.access")

    sent, _ = await run(AccessLogMiddleware(answering(), client=peer), http())

    assert len(sent) == 2
    assert caplog.records == []


@pytest.mark.parametrize("scope", OTHER_SCOPES, ids=lambda scope: scope["type"])
async def test_other_scopes_than_http_pass_untouched(scope: dict[str, str]) -> None:
    assert await passes_untouched(AccessLogMiddleware(untouched, client=peer), dict(scope))


async def test_a_line_that_no_handler_gets_is_not_measured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "latchkey.access")

    assert await passes_untouched(AccessLogMiddleware(untouched, client=peer), http())
    assert caplog.records == []


async def test_the_duration_is_in_milliseconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([100.0, 112.34567])
    monkeypatch.setattr("latchkey.middleware.access_log.time.perf_counter", lambda: next(moments))
    await run(AccessLogMiddleware(answering(200), client=peer), http())

    assert fields_of(caplog.records[0])["duration_ms"] == 12345.67
