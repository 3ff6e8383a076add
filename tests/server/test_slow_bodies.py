"""Bodies that do not arrive in time, over real sockets."""

import asyncio
import contextlib
import json

import msgspec
import pytest

from latchkey.models import User
from latchkey.service.settings import Settings
from tests.api import HeldKey
from tests.server.conftest import Serving

TIMEOUT_S = 0.5
EMAIL = "late@example.com"
BODY = json.dumps({"email": EMAIL, "name": "Late"}).encode()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, body_timeout_s=TIMEOUT_S)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read to the end of the connection, which is a reset for a client that is still sending."""
    whole = b""
    with contextlib.suppress(ConnectionResetError):
        while part := await reader.read(65536):
            whole += part
    return whole


@pytest.mark.parametrize("path", ["/v1/users", "/upload"], ids=["private", "public"])
@pytest.mark.parametrize("drip", [False, True], ids=["stalled", "dripping"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_it_is_answered_408_and_the_connection_is_closed(
    serving: Serving, operator: HeldKey, path: str, drip: bool, chunked: bool
) -> None:
    reader, writer = await serving.client()
    name, value = operator.bearer
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {len(BODY)}"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{name}: {value}\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
    began = asyncio.get_running_loop().time()
    writer.write(head.encode())
    answer = asyncio.create_task(read_all(reader))
    if drip:
        for byte in BODY:
            if answer.done() or writer.is_closing():
                break
            writer.write(b"1\r\n%c\r\n" % byte if chunked else b"%c" % byte)
            await asyncio.sleep(TIMEOUT_S / 10)
    async with asyncio.timeout(10):
        whole = await answer

    head_, _, body = whole.partition(b"\r\n\r\n")
    assert head_.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head_.lower()
    assert json.loads(body)["code"] == "body_timeout"
    assert asyncio.get_running_loop().time() - began < TIMEOUT_S + 5
    assert not await User.filter(email_key=EMAIL).exists()
    assert serving.app.state.db.checked_out() == 0
    writer.close()
