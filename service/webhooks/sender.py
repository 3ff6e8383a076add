"""Send one request to a webhook: to a checked address, within bounds of time and bytes, and without redirects.

The host is resolved here, and the connection goes to the address that was checked. A name whose address changes between
the check and the connection (DNS rebinding) therefore reaches nothing else.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2
import msgspec

from latchkey import service
from latchkey.middleware.trace import trace
from latchkey.service.networks import Address, parse_address
from latchkey.service.rule_error import RuleError
from latchkey.service.settings import Settings
from latchkey.service.webhooks.addresses import AddressRules

LARGEST_ANSWER_BYTES = 64 * 1024
SUCCESS = range(200, 300)


class Attempt(msgspec.Struct, frozen=True):
    """The result of one request."""

    response: int | None
    """The HTTP status; None without a response."""
    error: str | None
    """The reason of a failure; None after a success."""
    duration_ms: int

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has accepted the event."""
        return self.error is None


Resolve = Callable[[str, int], Any]


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host, as the system resolves it.

    Each resolution has a thread of its own: one that hangs delays neither others nor the end of the process.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def settle(result: list[Any] | OSError) -> None:
        if found.done():
            return
        if isinstance(result, OSError):
            found.set_exception(result)
        else:
            found.set_result(result)

    def work() -> None:
        result: list[Any] | OSError
        try:
            result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            result = error
        except UnicodeError:  # a label that is empty or too long
            result = OSError(f"{host} is not a host")
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=work, name=f"resolving {host}", daemon=True).start()
    texts = [str(address[0]).partition("%")[0] for *_, address in await found]
    return [address for text in texts if (address := parse_address(text)) is not None]


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connections to permitted addresses only.

    Args:
        rules: which addresses are permitted.
        resolve: returns the addresses of a host.
    """

    def __init__(self, rules: AddressRules, resolve: Resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of httpcore2
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that accepts the connection.

        Raises:
            RuleError: the host cannot be resolved, or requests to one of its addresses are not permitted.
            httpcore2.ConnectError: no address accepts the connection.
        """
        try:
            addresses = self._rules.permitted(await self._resolve(host, port))
        except OSError:
            raise RuleError("the host cannot be resolved") from None
        refused = httpcore2.ConnectError("no connection")
        for address in addresses:
            try:
                return await self._network.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except httpcore2.ConnectError as error:
                refused = error
        raise refused

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Refuse: no URL leads to a socket in the file system."""
        raise httpcore2.ConnectError(f"{path}: not a host")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Sender:
    """Sends requests; each has a connection of its own, which ends with it.

    Args:
        rules: which addresses are permitted.
        timeout_s: how long one request may take, from the resolution of the host to the end of the response.
        agent: the value of `User-Agent`.
        resolve: returns the addresses of a host; a test replaces it.
        context: of TLS; None verifies the server by the authorities that the machine trusts.
    """

    def __init__(
        self,
        rules: AddressRules,
        *,
        timeout_s: float,
        agent: str,
        resolve: Resolve = resolve,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.rules = rules
        self._timeout_s = timeout_s
        self._agent = agent
        self._network = CheckedNetwork(rules, resolve)
        self._context = context

    async def post(self, url: str, payload: bytes, headers: Iterable[tuple[str, str]]) -> Attempt:
        """Send a payload, and return the result; no fault of the receiver raises an error."""
        began = time.monotonic()
        response, error = None, None
        try:
            self.rules.check_url(url)
            async with asyncio.timeout(self._timeout_s):
                response = await self._post(url, payload, headers)
            if response not in SUCCESS:
                error = f"the receiver answered with {response}"
        except RuleError as refused:
            error = refused.reason
        except TimeoutError:
            error = f"no response within {self._timeout_s:g} seconds"
        except (
            OSError,
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
            httpcore2.TimeoutException,
        ) as fault:
            error = sentence_of(fault)
        return Attempt(response, error, round(1000 * (time.monotonic() - began)))

    async def _post(self, url: str, payload: bytes, headers: Iterable[tuple[str, str]]) -> int:
        if self._context is None:
            # Reads the authorities from files, which takes some milliseconds.
            self._context = await asyncio.to_thread(ssl.create_default_context)
        sent = [
            ("content-type", "application/json"),
            ("content-length", str(len(payload))),
            ("user-agent", self._agent),
            ("connection", "close"),
            *trace_headers(),
            *headers,
        ]
        async with (
            httpcore2.AsyncConnectionPool(
                ssl_context=self._context, network_backend=self._network, max_keepalive_connections=0
            ) as pool,
            pool.stream("POST", url, headers=[("host", host_of(url)), *sent], content=payload) as answer,
        ):
            received = 0
            async for part in answer.aiter_stream():
                received += len(part)
                if received > LARGEST_ANSWER_BYTES:
                    break  # the status is known; the rest does not matter
            return int(answer.status)


def trace_headers() -> list[tuple[str, str]]:
    """Return the header that makes a request a part of the current trace, as for a ping; none outside a trace."""
    found = trace.get()
    return [] if found is None else [("traceparent", found.traceparent)]


def sender_of(settings: Settings, rules: AddressRules) -> Sender:
    """Return the sender of an application or a command."""
    return Sender(rules, timeout_s=settings.webhook_timeout_s, agent=agent_of(service.__version__))


def agent_of(version: str) -> str:
    """Return the value of `User-Agent` for a version of Latchkey."""
    return f"Latchkey-Webhooks/{version}"


def host_of(url: str) -> str:
    """Return the value of the `Host` header for a URL."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0]


def sentence_of(fault: Exception) -> str:
    """Return the reason why a request got no response, without anything that the receiver has sent."""
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", None) or cause.reason or "it failed"
            return f"TLS: {reason.replace('_', ' ').lower()}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(fault, httpcore2.ConnectError | OSError):
        return "the connection was refused or failed"
    return "the connection ended before a complete response"
