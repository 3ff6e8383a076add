"""Log lines: one for each request, in the configured form, and none that a client can forge."""

import io
import json
import logging
import re
from collections.abc import Sequence
from typing import Literal

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from latchkey.service import logs
from latchkey.service.logs import JsonFormatter, TextFormatter
from latchkey.service.operation import Operation, route
from tests.api import HeldKey, call, hold_key

LINE = re.compile(
    r"\d\d:\d\d:\d\d\.\d{3} (INFO|WARNING|ERROR) +(\[(?P<id>[A-Za-z0-9._-]+)\] )?(?P<message>.*)"
)


class Nothing(msgspec.Struct):
    """An empty answer."""


async def fail(request: Request) -> Nothing:
    """Fail with a text of two lines."""
    raise ValueError("one line\n12:00:00.000 INFO    and one that looks like ours")


class Text(msgspec.Struct):
    text: str


async def fail_quoting(body: Text) -> Nothing:
    """Fail with a text that the client sent."""
    raise ValueError(body.text)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (route("GET", "/fail", fail, public=True), route("POST", "/quote", fail_quoting, public=True))


def write_to(handler: logging.Handler, stream: io.StringIO) -> None:
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)


@pytest.fixture
def shown(app: Starlette) -> io.StringIO:
    """Return the lines on standard error."""
    stream = io.StringIO()
    for name in logs.LEVELS:
        for handler in logging.getLogger(name).handlers:
            write_to(handler, stream)
    return stream


@pytest.fixture
def shown_as_json(app: Starlette) -> io.StringIO:
    logs.configure("json")
    stream = io.StringIO()
    write_to(logging.getLogger("latchkey").handlers[0], stream)
    return stream


async def test_a_visit_is_one_line_of_text(app: Starlette, operator: HeldKey, shown: io.StringIO) -> None:
    await call(
        app, "GET", "/v1/users?email=private@example.com", key=operator, headers=[("x-request-id", "v7")]
    )

    (line,) = shown.getvalue().splitlines()
    match = LINE.fullmatch(line)
    assert match["id"] == "v7"
    assert re.fullmatch(r"GET /v1/users 200 [0-9.]+ms", match["message"])


async def test_a_visit_is_one_json_object(
    app: Starlette, operator: HeldKey, shown_as_json: io.StringIO
) -> None:
    await call(
        app, "GET", "/v1/users?email=private@example.com", key=operator, headers=[("x-request-id", "v7")]
    )

    (line,) = shown_as_json.getvalue().splitlines()
    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields.pop("duration_ms") > 0
    assert re.fullmatch(r"GET /v1/users 200 [0-9.]+ms", fields.pop("message"))
    assert fields == {
        "level": "info",
        "logger": "latchkey.access",
        "request_id": "v7",
        "method": "GET",
        "path": "/v1/users",
        "status": 200,
        "client": "127.0.0.1",
        "access_key": operator.access_key,
        "claimed_access_key": None,
    }


async def test_the_lines_of_a_request_name_the_trace_of_its_caller(
    app: Starlette, operator: HeldKey, shown_as_json: io.StringIO
) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await call(app, "GET", "/v1/users", key=operator, headers=[("traceparent", parent)])

    fields = json.loads(shown_as_json.getvalue())
    trace_id, span_id = parent.split("-")[1], fields["span_id"]
    assert fields["trace_id"] == trace_id
    assert answer.headers["traceparent"] == f"00-{trace_id}-{span_id}-01"


@pytest.mark.parametrize(
    "target, path",
    [
        pytest.param(
            "/a%0A12:00:00.000%20INFO%20forged", "/a%0A12:00:00.000%20INFO%20forged", id="a newline"
        ),
        pytest.param("/a%0D%1B%5B2J", "/a%0D%1B%5B2J", id="a terminal's escape"),
        pytest.param("/a%22%2C%22status%22%3A200", "/a%22%2C%22status%22%3A200", id="quotes"),
        pytest.param("/\xe9", "/\\xe9", id="bytes that are not ASCII"),
        pytest.param("/a%00", "/a%00", id="a null"),
        pytest.param("/a?key=lka_x&b=%0A", "/a", id="a query"),
    ],
)
async def test_no_path_forges_a_line(app: Starlette, shown: io.StringIO, target: str, path: str) -> None:
    await call(app, "GET", target)

    (line,) = shown.getvalue().splitlines()
    assert f"GET {path} 404 " in LINE.fullmatch(line)["message"]


async def test_a_server_that_gives_no_raw_path_is_quoted(app: Starlette, shown: io.StringIO) -> None:
    """`raw_path` is optional in ASGI, and the decoded path may contain anything."""

    async def without_raw_path(scope: Scope, receive: Receive, send: Send) -> None:
        await app({name: value for name, value in scope.items() if name != "raw_path"}, receive, send)

    await call(app, "GET", "/a%0A12:00:00.000%20INFO%20%C3%A9", wrap=without_raw_path)

    (line,) = shown.getvalue().splitlines()
    assert "GET /a%0A12%3A00%3A00.000%20INFO%20%C3%A9 404 " in line


async def test_the_caller_is_logged_only_after_its_proof(
    app: Starlette, operator: HeldKey, shown_as_json: io.StringIO
) -> None:
    stranger = await hold_key(app, status="revoked")

    await call(app, "GET", "/v1/me", key=stranger)
    await call(app, "GET", "/healthz", key=operator)

    reason, *lines = [json.loads(line) for line in shown_as_json.getvalue().splitlines()]
    assert [(line["status"], line["access_key"]) for line in lines] == [(401, None), (200, None)]
    assert reason["message"] == f"refused: key_revoked; claimed key: none, proved key: {stranger.access_key}"


async def test_an_error_is_logged_with_the_id_of_its_visit_and_its_trace(
    app: Starlette, shown: io.StringIO
) -> None:
    await call(app, "GET", "/fail", headers=[("x-request-id", "v7")])

    access, error, *trace = shown.getvalue().splitlines()
    assert LINE.fullmatch(error)["id"] == LINE.fullmatch(access)["id"] == "v7"
    assert LINE.fullmatch(error)["message"] == "GET /fail failed"
    assert trace[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in trace)
    assert any("one that looks like ours" in line for line in trace)


async def test_an_error_is_one_json_object_with_its_trace_escaped(
    app: Starlette, shown_as_json: io.StringIO
) -> None:
    await call(app, "GET", "/fail", headers=[("x-request-id", "v7")])

    access, error = (json.loads(line) for line in shown_as_json.getvalue().splitlines())
    assert (error["level"], error["request_id"], access["status"]) == ("error", "v7", 500)
    assert "and one that looks like ours" in error["trace"]


@pytest.mark.parametrize("part", ["x", "\n", "x\n", "\x1b"])
@pytest.mark.parametrize("form", ["text", "json"])
async def test_an_error_that_quotes_a_body_has_a_bound(
    app: Starlette, form: Literal["text", "json"], part: str
) -> None:
    logs.configure(form)
    stream = io.StringIO()
    write_to(logging.getLogger("latchkey").handlers[0], stream)

    await call(app, "POST", "/quote", body={"text": part * 170_000})

    shown = stream.getvalue()
    assert "ValueError: " in shown
    assert len(shown) < 8 * logs.LONGEST_TRACE


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()], ids=["text", "json"])
def test_a_message_has_a_bound(formatter: TextFormatter | JsonFormatter) -> None:
    line = formatter.format(logging.makeLogRecord({"msg": "x" * 1_000_000, "levelname": "INFO"}))

    assert len(line) < 2 * logs.LONGEST_LINE


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_outside_requests_has_no_id(form: Literal["text", "json"], loggers: None) -> None:
    formatter = {"text": logs.TextFormatter(), "json": logs.JsonFormatter()}[form]

    line = formatter.format(logging.makeLogRecord({"msg": "%s away", "args": ("go",), "levelname": "INFO"}))

    if form == "json":
        assert json.loads(line)["request_id"] is None
        assert json.loads(line)["message"] == "go away"
    else:
        assert LINE.fullmatch(line)["id"] is None
        assert LINE.fullmatch(line)["message"] == "go away"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("two\nlines", id="a newline"),
        pytest.param("two\r\nlines", id="another newline"),
        pytest.param("a lone surrogate \udc80", id="a surrogate"),
    ],
)
@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()], ids=["text", "json"])
def test_any_log_text_is_one_line_that_can_be_written(
    formatter: TextFormatter | JsonFormatter, message: str
) -> None:
    line = formatter.format(logging.makeLogRecord({"msg": message, "levelname": "INFO"}))

    assert len(line.splitlines()) == 1
    assert line.encode()


def test_configured_twice_a_line_stands_once(loggers: None) -> None:
    logs.configure("text")
    logs.configure("json")

    for name in logs.LEVELS:
        (handler,) = logging.getLogger(name).handlers
        assert isinstance(handler.formatter, logs.JsonFormatter)
        assert not logging.getLogger(name).propagate
    assert not logging.getLogger("uvicorn.access").handlers
    assert not logging.getLogger("uvicorn.access").propagate
