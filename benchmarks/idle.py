"""Idle keep-alive clients: they use memory of a server, and must not use its time."""

import resource
import socket
from types import TracebackType
from typing import Self

from benchmarks.load import LoadError

TIMEOUT_S = 20
FILES_BESIDE = 4000  # the open files of a server, a database or a load generator, without idle clients


def raise_file_limit(files: int) -> None:
    """Raise the limit of open files for this process and its children, as far as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files + FILES_BESIDE
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LoadError(f"the machine allows {hard} open files, and {wanted} are needed: see `ulimit -Hn`")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class IdleClients:
    """Connections with one answer each, which are open during the `with` block."""

    def __init__(self, port: int, count: int, request: bytes) -> None:
        self.port = port
        self.count = count
        self.request = request
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        """Connect the clients, one after another."""
        try:
            for _ in range(self.count):
                client = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)
                self._sockets.append(client)
                client.sendall(self.request)
                read_answer(client)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect; raise an error if the server closed connections before."""
        cut_off = self.count - sum(map(_is_open, self._sockets))
        self._close()
        if error is None and cut_off:
            raise LoadError(f"{cut_off} of {self.count} idle clients were cut off")

    def _close(self) -> None:
        for client in self._sockets:
            client.close()


def read_answer(client: socket.socket) -> None:
    """Read one complete answer, which must be a 200."""
    with client.makefile("rb") as answer:
        status = answer.readline()
        if b" 200 " not in status:
            raise LoadError(f"an idle client was answered {status!r}")
        length = 0
        while (line := answer.readline()) not in {b"\r\n", b""}:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answer.read(length)


def _is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
