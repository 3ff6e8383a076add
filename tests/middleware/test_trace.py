"""A request with a `traceparent` belongs to its caller's trace."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from latchkey.middleware.trace import Trace, TraceMiddleware, trace
from tests.middleware.asgi import OTHER_SCOPES, answering, http, passes_untouched, run, untouched

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


class Noting:
    """An application that notes the trace in which it runs."""

    found: Trace | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.found = trace.get()
        await answering()(scope, receive, send)


async def traced(*values: str) -> tuple[Trace | None, list[bytes]]:
    """Return the trace of a request with these headers, and the `traceparent` of the response."""
    app = Noting()
    headers = [(b"traceparent", value.encode("latin-1")) for value in values]
    sent, _ = await run(TraceMiddleware(app), http(headers=headers))
    return app.found, [value for name, value in sent[0]["headers"] if name == b"traceparent"]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(PARENT, id="sampled"),
        pytest.param(f"cc-{TRACE_ID}-00f067aa0ba902b7-01-more-fields", id="a later version"),
    ],
)
async def test_the_trace_is_continued_with_a_span_of_its_own(header: str) -> None:
    found, answered = await traced(header)
    other, _ = await traced(header)

    assert found is not None
    assert other is not None
    assert (found.trace_id, found.flags) == (TRACE_ID, "01")
    assert found.span_id not in {"00f067aa0ba902b7", other.span_id, "0" * 16}
    assert answered == [f"00-{TRACE_ID}-{found.span_id}-01".encode()]
    assert trace.get() is None


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((), id="none"),
        pytest.param((PARENT, PARENT), id="two"),
        pytest.param((PARENT.upper(),), id="upper case"),
        pytest.param((f"{PARENT}-more",), id="more fields than version 00 has"),
        pytest.param((f"{PARENT}\n",), id="a newline"),
        pytest.param((f"ff{PARENT[2:]}",), id="the version that there is not"),
        pytest.param((f"00-{'0' * 32}-00f067aa0ba902b7-01",), id="no trace"),
        pytest.param((f"00-{TRACE_ID}-{'0' * 16}-01",), id="no span"),
        pytest.param(("é",), id="not ASCII"),
    ],
)
async def test_any_other_header_is_ignored(headers: tuple[str, ...]) -> None:
    assert await traced(*headers) == (None, [])


@pytest.mark.parametrize("scope", OTHER_SCOPES)
async def test_other_scopes_pass(scope: dict[str, Any]) -> None:
    assert await passes_untouched(TraceMiddleware(untouched), dict(scope))
