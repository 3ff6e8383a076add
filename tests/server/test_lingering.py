"""A client that still sends its body reads the whole of an early answer: the connection is not reset before."""

import asyncio
import json
import socket
import time

import msgspec
import pytest

from latchkey.service.connections import protocol
from latchkey.service.settings import Settings
from tests.api import HeldKey
from tests.server.conftest import Serving

TIMEOUT_S = 0.3
LIMIT_BYTES = 64 * 1024
PART = b"x" * 4096

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, body_timeout_s=TIMEOUT_S, body_limit_bytes=LIMIT_BYTES)


def send_on(port: int, head: str, *, parts: int, pause_s: float = 0.0) -> bytes:
    """Send a head and one part of its body; after the server has answered send more, and then read to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(head.encode() + PART)
        time.sleep(TIMEOUT_S + 0.3)
        for _ in range(parts):
            client.sendall(PART)
            time.sleep(pause_s)
        whole = b""
        while part := client.recv(65536):
            whole += part
    return whole


CASES = {
    "408": (408, "content-length: 60000\r\n", True),
    "408 chunked": (408, "transfer-encoding: chunked\r\n", True),
    "413": (413, "content-length: 60000000\r\nconnection: close\r\n", True),
    "401": (401, "content-length: 60000\r\nconnection: close\r\n", False),
    "404": (404, "content-length: 60000\r\nconnection: close\r\n", None),
}


@pytest.mark.parametrize("status, framing, has_key", CASES.values(), ids=CASES)
async def test_the_answer_arrives_although_the_client_goes_on(
    serving: Serving, operator: HeldKey, status: int, framing: str, has_key: bool | None
) -> None:
    name, value = operator.bearer
    key = f"{name}: {value}\r\n" if has_key else ""
    path = "/v1/none" if has_key is None else "/v1/users"
    chunk = f"{len(PART):x}\r\n" if "chunked" in framing else ""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{key}content-type: application/json\r\n{framing}\r\n{chunk}"

    whole = await asyncio.to_thread(send_on, serving.port, head, parts=8, pause_s=0.02)

    answer, _, body = whole.partition(b"\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in answer.lower()
    assert json.loads(body)["status"] == status


async def test_a_client_that_never_stops_is_cut_off(
    serving: Serving, operator: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a number of bytes, or after some time, whichever comes first."""
    monkeypatch.setattr(protocol, "LINGER_BYTES", 10 * len(PART))
    name, value = operator.bearer
    head = f"POST /v1/users HTTP/1.1\r\nhost: x\r\n{name}: {value}\r\ncontent-length: 60000000\r\nconnection: close\r\n\r\n"

    with pytest.raises(ConnectionError):
        await asyncio.to_thread(send_on, serving.port, head, parts=100, pause_s=0.005)
    monkeypatch.setattr(protocol, "LINGER_BYTES", 10**9)
    begun = time.monotonic()
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(send_on, serving.port, head, parts=1000, pause_s=0.02)

    assert time.monotonic() - begun < TIMEOUT_S + 0.3 + protocol.LINGER_S + 1.5
