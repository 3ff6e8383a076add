"""A request goes to the address that was checked, and is bounded in time and bytes."""

import asyncio
import ssl
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from latchkey.middleware.trace import Trace, trace
from latchkey.service.networks import Address
from latchkey.service.webhooks.addresses import AddressRules
from latchkey.service.webhooks.sender import LARGEST_ANSWER_BYTES, Attempt, Sender, resolve
from tests.receiver import Received, Receiver, receiving

LOOPBACK = AddressRules(allowed=(ip_network("127.0.0.0/8"),), plain_http=True)
HEADERS = [("webhook-id", "evt_1")]


def sender(rules: AddressRules = LOOPBACK, **options: Any) -> Sender:
    return Sender(rules, **{"timeout_s": 5.0, "agent": "Latchkey-Webhooks/1", **options})


async def test_a_request_is_sent_as_it_is() -> None:
    async with receiving() as receiver:
        attempt = await sender().post(receiver.url, b'{"a":1}', HEADERS)

    [request] = receiver.requests
    assert (attempt.response, attempt.error, attempt.is_delivered) == (204, None, True)
    assert (request.method, request.target, request.body) == ("POST", "/events?of=latchkey", b'{"a":1}')
    assert request.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "content-type": "application/json",
        "content-length": "7",
        "user-agent": "Latchkey-Webhooks/1",
        "connection": "close",
        "webhook-id": "evt_1",
    }


async def test_a_request_in_a_trace_belongs_to_it() -> None:
    current = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01")
    token = trace.set(current)
    try:
        async with receiving() as receiver:
            await sender().post(receiver.url, b"{}", HEADERS)
    finally:
        trace.reset(token)

    assert receiver.requests[0].headers["traceparent"] == current.traceparent


@pytest.mark.parametrize("name", ["localhost", "127.1", "0x7f000001", "2130706433", "receiver.example"])
async def test_a_name_of_the_own_network_is_refused_when_it_is_resolved(name: str) -> None:
    """Where the system's resolver accepts such a spelling, the address behind it is checked."""

    async def find(host: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1")] if host == "receiver.example" else await resolve(host, port)

    async with receiving() as receiver:
        url = f"http://{name}:{receiver.port}/"
        attempt = await sender(AddressRules(plain_http=True), resolve=find).post(url, b"{}", HEADERS)

    assert receiver.requests == []
    assert attempt.response is None
    assert "not public" in str(attempt.error) or "cannot be resolved" in str(attempt.error)


async def test_a_name_that_moves_after_the_check_reaches_nothing_else() -> None:
    """DNS rebinding: the name is resolved once, and the connection goes to the address of that answer."""
    answers = [[ip_address("127.0.0.1")], [ip_address("127.0.0.2")]]
    asked: list[str] = []

    async def find(host: str, _port: int) -> list[Address]:
        asked.append(host)
        return answers.pop(0)

    async with receiving() as receiver:
        one = AddressRules(allowed=(ip_network("127.0.0.1/32"),), plain_http=True)
        first = await sender(one, resolve=find).post(
            f"http://moving.example:{receiver.port}/", b"{}", HEADERS
        )
        then = await sender(one, resolve=find).post(f"http://moving.example:{receiver.port}/", b"{}", HEADERS)

    assert asked == ["moving.example"] * 2
    assert first.is_delivered
    assert len(receiver.requests) == 1
    assert receiver.requests[0].headers["host"] == f"moving.example:{receiver.port}"
    assert "not public" in str(then.error)


async def test_another_address_is_tried_when_one_refuses() -> None:
    async def find(_host: str, _port: int) -> list[Address]:
        return [ip_address("127.0.0.2"), ip_address("127.0.0.1")]

    async with receiving() as receiver:
        attempt = await sender(resolve=find).post(f"http://two.example:{receiver.port}/", b"{}", HEADERS)

    assert attempt.is_delivered


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as target, receiving() as receiver:
        location = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {target.url}\r\ncontent-length: 0\r\n\r\n"
        receiver.answer = lambda _: location.encode()

        attempt = await sender().post(receiver.url, b"{}", HEADERS)

    assert attempt.response == 307
    assert attempt.error == "the receiver answered with 307"
    assert target.requests == []


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")

        assert (await sender().post(receiver.url, b"{}", HEADERS)).is_delivered

    assert proxy.requests == []


async def test_a_large_answer_is_not_read_to_its_end() -> None:
    async with receiving() as receiver:
        size = 64 * LARGEST_ANSWER_BYTES
        receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)

        began = time.monotonic()
        attempt = await sender().post(receiver.url, b"{}", HEADERS)

    assert attempt.is_delivered
    assert time.monotonic() - began < 2


async def slow(receiver: Receiver, **options: Any) -> Attempt:
    return await sender(**{"timeout_s": 0.2, **options}).post(receiver.url, b"{}", HEADERS)


async def test_every_wait_has_an_end() -> None:
    async def never(_host: str, _port: int) -> list[Address]:
        await asyncio.sleep(60)
        return []

    async with receiving() as receiver:
        unresolved = await slow(receiver, resolve=never)
        receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
        cut = await slow(receiver, timeout_s=5.0)
        receiver.delay_s = 60
        silent = await slow(receiver)

    assert unresolved.error == silent.error == "no response within 0.2 seconds"
    assert cut.error == "the connection ended before a complete response"


@pytest.mark.parametrize(
    "answer", [None, b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000]
)
async def test_what_is_no_answer_is_a_failure(answer: bytes | None) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _: answer

        attempt = await sender().post(receiver.url, b"{}", HEADERS)

    assert (attempt.response, attempt.is_delivered) == (None, False)
    assert attempt.error == "the connection ended before a complete response"


async def test_a_closed_port_is_a_failure() -> None:
    async with receiving() as receiver:
        pass

    attempt = await sender().post(receiver.url, b"{}", HEADERS)

    assert attempt.error == "the connection was refused or failed"


def is_the_host(request: Received, receiver: Receiver) -> bool:
    return request.headers["host"] == f"receiver.example:{receiver.port}"


async def test_the_certificate_must_be_that_of_the_host(certificate: Path) -> None:
    """The connection goes to an address, and the certificate is still compared with the name of the URL."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def find(_host: str, _port: int) -> list[Address]:
        return [ip_address("127.0.0.1")]

    async with receiving(served) as receiver:
        by_address = f"https://127.0.0.1:{receiver.port}/"
        by_name = f"https://receiver.example:{receiver.port}/"
        right = await sender(context=trusting).post(by_address, b"{}", HEADERS)
        other = await sender(context=trusting, resolve=find).post(by_name, b"{}", HEADERS)
        unknown = await sender().post(by_address, b"{}", HEADERS)

    assert right.is_delivered
    assert str(other.error).startswith("TLS: hostname mismatch")
    assert str(unknown.error).startswith("TLS: self-signed certificate")
    assert len(receiver.requests) == 1
