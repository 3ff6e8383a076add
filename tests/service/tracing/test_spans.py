"""With `LATCHKEY_TRACES=opentelemetry`, each request is a span, and so is each of its statements."""

import asyncio
import importlib
import os
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.database import db
from latchkey.service.database.watched import watch_of
from latchkey.service.operation import Operation, route
from latchkey.service.settings import Settings, SettingsError
from latchkey.service.shapes import Health
from latchkey.service.tracing.opening import open_tracing
from tests.api import HeldKey, call
from tests.conftest import KEYRING, MARIADB
from tests.processes import Served, status_of
from tests.receiver import receiving

ROOT = Path(__file__).parents[3]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = ("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01")


async def fail(request: Request) -> Health:
    """Fail with a text that nobody should see."""
    raise ValueError("private text")


async def fail_in_statement(request: Request) -> Health:
    """Insert a row twice."""
    for _ in range(2):
        await User.create(email="private@example.com", name="P")
    return Health(status="ok")


async def wait_in_statement(request: Request) -> Health:
    """Execute a statement that takes a minute."""
    await db.scoped_session().execute(text("SELECT SLEEP(60)"))
    return Health(status="ok")


async def read_in_child(request: Request) -> Health:
    """Read in a child task."""
    async with asyncio.TaskGroup() as group:
        group.create_task(User.filter().count())
    return Health(status="ok")


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("GET", "/fail", fail, public=True),
        route("POST", "/twice", fail_in_statement, public=True),
        route("POST", "/slow", wait_in_statement, public=True),
        route("GET", "/child", read_in_child, public=True),
    )


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, traces="opentelemetry")


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Return the exporter of the process; a provider can be set only once."""
    found = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(found))
    return found


class Spans:
    """The spans that were recorded since the last look."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def take(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """Return the span of the one request, and those of its statements."""
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        (request,) = [one for one in spans if one.kind is SpanKind.SERVER]
        statements = [one for one in spans if one.kind is SpanKind.CLIENT]
        assert len(spans) == 1 + len(statements)
        for one in statements:
            assert one.parent == request.context
        return request, statements


@pytest.fixture
def spans(exporter: InMemorySpanExporter, app: Starlette, operator: HeldKey) -> Iterator[Spans]:
    exporter.clear()
    yield Spans(exporter)
    exporter.clear()


def text_of(*spans: ReadableSpan) -> str:
    return "".join(one.to_json() for one in spans)


async def test_a_request_is_a_span_with_a_span_for_each_statement(
    app: Starlette, operator: HeldKey, spans: Spans, database_url: str
) -> None:
    await call(
        app, "GET", "/v1/users?email=private@example.com", key=operator, headers=[("x-request-id", "v7")]
    )

    request, statements = spans.take()
    assert request.name == "GET /v1/users"
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/users",
        "http.response.status_code": 200,
        "url.path": "/v1/users",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "latchkey.request_id": "v7",
        "latchkey.access_key": operator.access_key,
    }
    assert [one.name for one in statements] == ["SELECT", "SELECT"]  # the key with its owner, and the users
    for one in statements:
        assert one.attributes["db.system.name"] == ("sqlite" if "sqlite" in database_url else "mysql")
        assert "FROM" in str(one.attributes["db.query.text"])
    assert request.parent is None
    assert "private" not in text_of(request, *statements)
    assert operator.secret not in text_of(request, *statements)


async def test_a_write_has_the_statements_of_its_transaction(
    app: Starlette, operator: HeldKey, spans: Spans
) -> None:
    body = {"email": "private@example.com", "name": "Ann"}
    created = await call(app, "POST", "/v1/users", key=operator, body=body)

    request, statements = spans.take()
    assert created.status == 201
    assert request.name == "POST /v1/users"
    assert [one.name for one in statements].count("INSERT") >= 2  # the user and the audit event
    assert "private" not in text_of(request, *statements)


async def test_a_span_continues_the_trace_of_the_caller(
    app: Starlette, operator: HeldKey, spans: Spans
) -> None:
    answer = await call(app, "GET", "/v1/me", key=operator, headers=[PARENT, ("tracestate", "vendor=1")])

    request, _ = spans.take()
    assert trace.format_trace_id(request.context.trace_id) == TRACE_ID
    assert trace.format_span_id(request.parent.span_id) == "00f067aa0ba902b7"
    assert request.context.trace_state.to_header() == "vendor=1"
    span_id = trace.format_span_id(request.context.span_id)
    assert answer.headers["traceparent"] == f"00-{TRACE_ID}-{span_id}-01"


async def test_a_request_that_the_caller_does_not_sample_is_not_recorded(
    app: Starlette, operator: HeldKey, exporter: InMemorySpanExporter, spans: Spans
) -> None:
    answer = await call(app, "GET", "/v1/me", key=operator, headers=[(PARENT[0], PARENT[1][:-1] + "0")])

    assert exporter.get_finished_spans() == ()
    assert re.fullmatch(f"00-{TRACE_ID}-[0-9a-f]{{16}}-00", answer.headers["traceparent"])


@pytest.mark.parametrize(
    "method, target, status, name, problem",
    [
        pytest.param("GET", "/fail", 500, "GET /fail", "internal_error", id="an exception"),
        pytest.param("GET", "/unknown", 404, "GET", "not_found", id="an unknown path"),
        pytest.param("GET", "/v1/me", 401, "GET /v1/me", "unauthenticated", id="no credential"),
    ],
)
async def test_a_problem_is_named(
    app: Starlette, spans: Spans, method: str, target: str, status: int, name: str, problem: str
) -> None:
    await call(app, method, target)

    request, _ = spans.take()
    assert (request.name, request.attributes["latchkey.problem"]) == (name, problem)
    assert request.attributes["http.response.status_code"] == status
    assert request.status.status_code is (StatusCode.ERROR if status == 500 else StatusCode.UNSET)
    assert "private text" not in text_of(request)


async def test_a_statement_that_fails_is_an_error_without_its_values(app: Starlette, spans: Spans) -> None:
    answer = await call(app, "POST", "/twice")

    request, statements = spans.take()
    assert answer.status == 409
    assert [one.status.status_code for one in statements][-2:] == [StatusCode.UNSET, StatusCode.ERROR]
    assert statements[-1].attributes["error.type"] == "IntegrityError"
    assert "private" not in text_of(request, *statements)


async def test_a_statement_of_a_child_task_belongs_to_the_request(app: Starlette, spans: Spans) -> None:
    await call(app, "GET", "/child")

    _, statements = spans.take()
    assert [one.name for one in statements] == ["SELECT"]


@pytest.mark.parametrize("database_url", [MARIADB], indirect=True)
async def test_a_statement_that_is_cancelled_ends_its_span(app: Starlette, spans: Spans) -> None:
    slow = asyncio.create_task(call(app, "POST", "/slow"))
    await asyncio.sleep(0.2)
    slow.cancel()
    await asyncio.wait({slow})

    _, statements = spans.take()
    assert [one.attributes["error.type"] for one in statements] == ["CancelledError"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestOff:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, traces="off")

    async def test_nothing_is_recorded_or_watched(
        self, app: Starlette, operator: HeldKey, exporter: InMemorySpanExporter
    ) -> None:
        exporter.clear()
        answer = await call(app, "GET", "/v1/me", key=operator)

        assert exporter.get_finished_spans() == ()
        assert "traceparent" not in answer.headers
        assert watch_of(app.state.db.reader.sync_engine) is None
        assert app.state.latchkey.tracing is None


def test_nothing_of_opentelemetry_is_imported_without_it() -> None:
    """Only one module imports it, and this module is imported by its name when tracing is on."""
    sources = {
        file: file.read_text() for folder in ("service", "middleware", "models") for file in ROOT.glob(f"{folder}/**/*.py")
    }  # fmt: skip
    importing = [file for file, text in sources.items() if re.search(r"(from|import) opentelemetry", text)]

    assert importing == [ROOT / "service" / "tracing" / "spans.py"]
    assert not [
        file for file, text in sources.items() if re.search(r"^from .*tracing\.spans", text, re.MULTILINE)
    ]


def test_the_extra_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", find)

    with pytest.raises(SettingsError, match=re.escape("pip install 'latchkey[opentelemetry]'")):
        open_tracing(Settings(traces="opentelemetry"))


async def test_a_process_exports_its_spans_by_otlp(tmp_path: Path, sqlite_template: Path) -> None:
    """To the address of the standard variables; those that wait are exported when it ends."""
    shutil.copy(sqlite_template, tmp_path / "latchkey.db")
    environ = {
        "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/latchkey.db",
        "LATCHKEY_KEYRING": KEYRING,
        "LATCHKEY_TRACES": "opentelemetry",
    }

    async with receiving() as receiver:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{receiver.port}"
        receiver.answer = lambda _: 200

        def ask() -> int:
            with Served(tmp_path, "serve", environ={**os.environ, **environ}) as served:
                status_of(urllib.request.Request(served.url + "/v1/me"))
                return served.stop(signal.SIGTERM)

        ended = await asyncio.to_thread(ask)

    found = [ExportTraceServiceRequest.FromString(one.body) for one in receiver.requests]
    resources = [one for request in found for one in request.resource_spans]
    names = {span.name for one in resources for scope in one.scope_spans for span in scope.spans}
    attributes = {one.key: one.value.string_value for one in resources[0].resource.attributes}
    assert ended == 0
    assert {one.target for one in receiver.requests} == {"/v1/traces"}
    assert {"GET /v1/me", "GET /healthz"} <= names
    assert attributes["service.name"] == "latchkey"
