"""uvicorn's HTTP/1.1 protocol on httptools, with bounds, and with trailers kept separate from headers."""

import asyncio
from collections import deque
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from latchkey.middleware.request_id import new_request_id
from latchkey.middleware.root_path import root_path
from latchkey.service.connections.bounds import FIELD_MEMORY_BYTES, Bounds
from latchkey.service.connections.guard import BOUNDED
from latchkey.service.connections.response_transport import ResponseTransport
from latchkey.service.connections.room import Room
from latchkey.service.problems import Problem

LINGER_S = 2.0  # how long a refused client may continue to send before it reads the response
LINGER_BYTES = 128 * 1024 * 1024  # and how much
FIELD_BYTES = 4  # `: ` and the line ending
PART_BYTES = 4 * 1024  # the number of received bytes that are parsed at a time
WRITE_BUFFER_BYTES = 16 * 1024  # the size of unread responses above which the application waits


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    httptools calls `on_header` also for the trailers of a chunked body (RFC 9112, section 7.1.2), and uvicorn appends them
    to the list that the application holds as `scope["headers"]`. Here they are dropped, as RFC 9110, section 6.5.1,
    permits.

    A request that exceeds a bound is answered with a problem, after the responses to earlier requests of the connection, and
    the connection is closed.

    httptools skips the body of a request with `Upgrade`, so the body would be parsed as the next request. Such a request
    is refused. A request with `Upgrade` and no body is answered as if it had not asked for another protocol (RFC 9110,
    section 7.8), and is the last of its connection. WebSockets are handed over as in uvicorn.

    Args:
        config, server_state, app_state, _loop: as uvicorn passes them.
        bounds: of this worker.
        room: shared by all connections of this server.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        bounds: Bounds,
        room: Room["BoundedProtocol"],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.bounds = bounds
        self.room = room
        if bounds.keep_alive_s is not None:
            self.timeout_keep_alive = bounds.keep_alive_s

        self.held_bytes = 0  # the memory of unanswered requests, headers and bodies
        self._held_each: deque[int] = deque()  # the same for each request
        self._header_bytes = 0  # of the current request
        self._unparsed_bytes = 0  # a lower bound of the bytes that the parser buffers, counted since its last callback, that data included
        self._is_reading = False  # a request has begun and is incomplete
        self._has_headers = False  # the headers of the current request are complete
        self._discards = False  # all further data is ignored
        self._is_last = False  # no request is read after the current one
        self._refusal: Problem | None = None  # the problem of the request that is being parsed
        self._last_answer: Problem | None = None  # sent after the requests in progress
        self._deadline: asyncio.TimerHandle | None = None
        self._lingering_bytes = 0  # received after the last response

    # ------------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Accept a client; without space, the connection that has waited longest for its client is closed."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if len(self.connections) - self.room.lingering > self.bounds.connections:
            longest = self.room.longest()
            if longest is None:
                self.refuse(busy("all connections are in use"))
                return
            longest.give_way("all connections are in use")
        self.room.enter(self)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the memory of the connection."""
        super().connection_lost(exc)
        self._discards = True
        self._clear_deadline()
        self.room.lose(self)
        self._release_all()

    def data_received(self, data: bytes) -> None:
        """Parse the received data in parts, because it is unknown how much of a part the parser keeps."""
        for start in range(0, len(data), PART_BYTES):
            if self._discards:
                self._lingering_bytes += len(data) - start
                if self._lingering_bytes > LINGER_BYTES:
                    self.transport.abort()
                return
            self._parse(data[start : start + PART_BYTES])

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_reading:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self.bounds.header_bytes + PART_BYTES:
                self._refusal = self._refusal or Problem("headers_too_large")
            elif not self._has_headers or self._unparsed_bytes > len(data):  # the data is not part of a body
                self._hold(len(data))
        if self._refusal is not None:
            self.refuse(self._refusal)
        elif not self.transport.is_closing():
            self._watch()
            self._discards = self._is_last

    def handle_websocket_upgrade(self) -> None:
        """Pass the connection to another protocol, unless the request is refused."""
        if self._refusal is not None:
            return
        self._is_reading = False
        self._clear_deadline()
        self.room.leave(self)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """Pause until the client reads its response."""
        super().pause_writing()
        self.room.enter(self)

    def resume_writing(self) -> None:
        """Continue: the client has read its response."""
        super().resume_writing()
        if self._is_busy() and not self._is_reading:
            self.room.leave(self)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection without a further request; an incomplete request has its own deadline."""
        if not self._is_reading:
            super().timeout_keep_alive_handler()

    def _is_busy(self) -> bool:
        """Return whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _is_idle(self) -> bool:
        """Return whether every request was answered and no other has begun."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and cycle.response_complete and not self._is_reading

    def _watch(self) -> None:
        """Record whether the connection waits for its client, and set or clear its deadline."""
        is_busy = self._is_busy()
        if is_busy and not self._is_reading:
            self.room.leave(self)
        else:
            self.room.enter(self)
        if is_busy and (self._has_headers or not self._is_reading):
            self._clear_deadline()  # the application has its own deadline for a body
        elif self._deadline is None:
            self._set_deadline()

    # ------------------------------------------------------------------ deadlines

    def _set_deadline(self, delay_s: float | None = None) -> None:
        self._clear_deadline()
        delay_s = self.bounds.header_timeout_s if delay_s is None else delay_s
        self._deadline = self.loop.call_later(delay_s, self._pass_deadline)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _pass_deadline(self) -> None:
        self._deadline = None
        if self._discards or (self._is_reading and self._has_headers):
            self.transport.abort()  # a refused client that continues, or a body for which nothing waits
        elif self.flow.read_paused:
            self._set_deadline()  # the server had paused reading
        elif self._is_idle():
            self.transport.close()
        else:
            self.refuse(Problem("headers_timeout"))

    # ------------------------------------------------------------------ the parser

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._refusal is not None:
            return
        super().on_message_begin()
        self.scope["extensions"] = {BOUNDED: {}}
        self._is_reading, self._has_headers = True, False
        self._header_bytes = self._unparsed_bytes = 0
        self._held_each.append(0)

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        if self._refusal is not None:
            return
        super().on_url(url)
        self._header_bytes += len(url)
        if self._header_bytes > self.bounds.header_bytes:
            self._refusal = Problem("uri_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers are ignored."""
        if self._has_headers or self._refusal is not None:
            return
        self._header_bytes += len(name) + len(value) + FIELD_BYTES
        if self._header_bytes > self.bounds.header_bytes or len(self.headers) >= self.bounds.header_lines:
            self._refusal = Problem("headers_too_large")
            return
        super().on_header(name, value)
        self._hold(len(name) + len(value) + FIELD_MEMORY_BYTES)

    def on_headers_complete(self) -> None:
        """Start the application, or queue the request behind those in progress."""
        if self._refusal is not None:
            return
        if self._is_busy() and len(self.pipeline) >= self.bounds.pipelined:
            self._refusal = busy("too many requests of one connection wait for their answers")
            return
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and self.parser.get_method() != b"CONNECT" and announces_body(self.headers):
            self._refusal = Problem("upgrade_with_body")
            return
        super().on_headers_complete()  # it may find that the request target is invalid
        self._has_headers = True
        self._unparsed_bytes = 0
        if is_upgrade and self._should_upgrade():
            return  # there is no response: another protocol takes the connection
        self.cycle.transport = ResponseTransport(self.transport, self.close_after_response)  # type: ignore[assignment]  # what a response uses of one
        if is_upgrade:
            # httptools skips the rest of a packet after an upgrade, and parses the next packet.
            self.cycle.keep_alive = False
            self._is_last = True

    def on_body(self, body: bytes) -> None:
        """Add a part of a body."""
        if self._refusal is not None:
            return
        self._unparsed_bytes = 0
        super().on_body(body)
        if self.cycle.response_complete:
            return  # uvicorn has dropped the body
        self._hold(len(body))

    def on_message_complete(self) -> None:
        """End a request."""
        if self._refusal is not None:
            return
        self._is_reading = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Continue with the next request, or refuse it."""
        is_last = not self.pipeline
        if self._held_each:
            self._release(self._held_each.popleft())
        super().on_response_complete()
        if self._discards and self._last_answer is None:
            return
        if is_last and self._last_answer is not None:
            self._answer(self._last_answer)
        elif is_last and self._is_reading and self._deadline is None:
            self._set_deadline()
        elif is_last:
            self.room.enter(self)

    # ------------------------------------------------------------------ memory

    def _hold(self, count: int) -> None:
        """Count memory for the current request; without space, the connection that has waited longest is closed."""
        if not self._held_each:
            return  # the request was answered
        self._held_each[-1] += count
        self.held_bytes += count
        self.room.held_bytes += count
        while self.room.held_bytes > self.bounds.request_memory_bytes:
            longest = self.room.longest(holding=True)
            if longest is None or longest is self:
                self._refusal = self._refusal or busy("all memory for requests is in use")
                return
            longest.give_way("all memory for requests is in use")

    def _release(self, count: int) -> None:
        self.held_bytes -= count
        self.room.held_bytes -= count

    def _release_all(self) -> None:
        self._release(self.held_bytes)
        self._held_each.clear()

    # ------------------------------------------------------------------ refusals

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's message, which adds nothing to the problem
        """Refuse data that is not HTTP."""
        self._refusal = self._refusal or Problem("malformed_request")

    def give_way(self, why: str) -> None:
        """Close the connection to free its space for another one; an idle connection gets no response."""
        if self.transport.is_closing() or self.flow.write_paused:
            self._discard()
            self.transport.abort()
        elif self._is_idle():
            self._discard()
            self.transport.close()
        else:
            self.refuse(busy(why))

    def refuse(self, problem: Problem) -> None:
        """Send a problem after the requests in progress, and close the connection."""
        self._discard()
        self.room.refusals.note(problem.detail, self.client)
        if self._is_reading and self._has_headers:
            if self.pipeline:
                self.pipeline.popleft()  # the request itself, which is queued
                self._last_answer = problem
            else:
                self._interrupt(problem)
        elif self._is_busy() or self.pipeline:
            self._last_answer = problem
        else:
            self._answer(problem)

    def _discard(self) -> None:
        """Ignore further data, and release the memory of the connection."""
        self._discards = True
        self._clear_deadline()
        self.room.leave(self)
        self._release_all()

    def _interrupt(self, problem: Problem) -> None:
        """Send a problem in place of the response of an application that waits for a body."""
        cycle = self.cycle
        if cycle.response_complete:
            self._finish()  # the request was answered
        elif cycle.response_started:
            self.transport.abort()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer(problem)

    def _answer(self, problem: Problem) -> None:
        """Write a problem as the last response of the connection."""
        name = new_request_id()
        token = root_path.set(self.bounds.root_path)
        try:
            response = problem.response(name)
        finally:
            root_path.reset(token)
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", name.encode()),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(
            b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)])
        )
        self._finish()

    def close_after_response(self) -> None:
        """Close the connection after its last response, which the client may read later than it sends the rest of a body."""
        if self._is_reading and not self._discards:
            self.pipeline.clear()
            self._discard()
            self._finish()
        else:
            self.transport.close()

    def _finish(self) -> None:
        """Close the connection after the client had time to read."""
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        # If unread data remained, the system would reset the connection on close, and the response could be lost.
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_deadline(LINGER_S)
        longest = self.room.linger(self)
        if longest is not None:
            longest.transport.abort()


def announces_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether the headers announce a body; httptools has checked that the length is a number."""
    found = dict(headers)
    return b"transfer-encoding" in found or int(found.get(b"content-length", 0)) > 0


def busy(why: str) -> Problem:
    """Return the problem for a client for which there is no space."""
    return Problem("server_busy", f"The service is busy: {why}.")
