"""The reloader of `latchkey dev` and `latchkey serve --reload`: while the code cannot be loaded, calls get an answer."""

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from multiprocessing.process import BaseProcess

from starlette.responses import Response
from uvicorn.supervisors import ChangeReload

from latchkey.service.problems import Problem

log = logging.getLogger("latchkey.server")

CLIENT_S = 1.0  # for the headers of a request, and again for the rest of it
PART_BYTES = 65_536
BACKLOG = 128


class Reloader(ChangeReload):  # type: ignore[misc, valid-type]  # a class that is chosen at import
    """uvicorn's reloader, with an answer to calls while the process that serves has ended by itself.

    The socket belongs to this process and stays open, so calls would otherwise wait until the code is mended.
    """

    stand_in: "StandIn | None" = None

    def startup(self) -> None:
        """Start the process."""
        super().startup()
        self._watch()

    def restart(self) -> None:
        """Replace the process."""
        self._forget()
        super().restart()
        self._watch()

    def shutdown(self) -> None:
        """End the process."""
        self._forget()
        super().shutdown()

    def _watch(self) -> None:
        self.stand_in = StandIn(self.process, self.sockets)
        self.stand_in.start()

    def _forget(self) -> None:
        if self.stand_in is not None:
            self.stand_in.stop()


class StandIn(threading.Thread):
    """Respond to every call with 503 from the moment when a process ends by itself.

    Args:
        process: the process that serves.
        sockets: those on which it serves.
    """

    def __init__(self, process: BaseProcess, sockets: list[socket.socket]) -> None:
        super().__init__(name="stand-in", daemon=True)
        self._process = process
        self._sockets = sockets
        self._told_end, self._telling_end = os.pipe()

    def stop(self) -> None:
        """Stop, before the process is ended."""
        os.close(self._telling_end)
        self.join()
        os.close(self._told_end)

    def run(self) -> None:
        """Wait for the end of the process, then answer until it is stopped."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._told_end, selectors.EVENT_READ)
            selector.register(self._process.sentinel, selectors.EVENT_READ)
            if self._must_stop(selector):
                return
            selector.unregister(self._process.sentinel)
            log.error(
                "The application has ended: calls are answered with 503 until a file of its code changes."
            )
            for one in self._sockets:
                one.listen(BACKLOG)
                selector.register(one, selectors.EVENT_READ)
            while not self._must_stop(selector):
                for one in self._sockets:
                    self._answer(one)

    def _must_stop(self, selector: selectors.BaseSelector) -> bool:
        return any(key.fd == self._told_end for key, _ in selector.select())

    @staticmethod
    def _answer(listening: socket.socket) -> None:
        try:
            listening.settimeout(0)
            client, _ = listening.accept()
        except OSError:  # another socket is ready, or the client has left
            return
        with client, contextlib.suppress(OSError):
            client.settimeout(CLIENT_S)
            received = b""
            while b"\r\n\r\n" not in received[-PART_BYTES:] and (part := client.recv(PART_BYTES)):
                received = (received + part)[-PART_BYTES:]
            client.sendall(answer())
            client.shutdown(socket.SHUT_WR)
            # A socket that is closed with unread bytes may destroy the answer on its way.
            deadline = time.monotonic() + CLIENT_S
            while time.monotonic() < deadline and client.recv(PART_BYTES):
                pass


def answer() -> bytes:
    """Return the whole answer as it is sent."""
    problem = Problem(
        "unavailable",
        "The code of the application cannot be loaded or started; the reason is in the terminal in which it runs.",
        headers={"connection": "close"},
    )
    response: Response = problem.response(None)
    lines = [
        b"HTTP/1.1 503 Service Unavailable",
        *(name + b": " + value for name, value in response.raw_headers),
    ]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
