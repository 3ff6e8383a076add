"""Clients that do not read their answer, over real sockets, while the answer reads rows one after another (R5)."""

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec
import pytest
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from latchkey.service.operation import Operation
from latchkey.service.settings import Settings
from tests.server.conftest import Serving
from tests.sessions.endpoints import response_route

TIMEOUT_S = 0.5
COUNT = 900
PART = b"x" * 65536
LAST_CHUNK = b"\r\n0\r\n\r\n"
NUMBERS = text(
    f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {COUNT}) SELECT i FROM n"
)


async def export(request: Request) -> Response:
    """Send more than the buffers of a socket, as the rows arrive."""
    rows = await request.state.session.stream(NUMBERS)
    return StreamingResponse(PART async for _ in rows)


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (response_route(export, path="/export"), response_route(export, "POST", path="/export"))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, stream_timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("stalls", [True, False], ids=["stalled", "willing"])
async def test_a_client_that_stalls_is_cut_and_others_get_all(
    serving: Serving, method: str, stalls: bool
) -> None:
    reader, writer = await serving.client()
    writer.write(f"{method} /export HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
    db = serving.app.state.db
    if stalls:
        async with asyncio.timeout(10):
            while not db.checked_out():
                await asyncio.sleep(0.01)
            while db.checked_out():
                await asyncio.sleep(0.01)
    size, end = 0, b""
    with contextlib.suppress(ConnectionError):
        while not end.endswith(LAST_CHUNK) and (part := await reader.read(2**20)):
            size += len(part)
            end = (end + part)[-len(LAST_CHUNK) :]
    writer.close()

    assert (size > COUNT * len(PART)) is not stalls
    assert (end == LAST_CHUNK) is not stalls
    assert db.checked_out() == 0
