"""The load: prepared requests, the number of clients that send them, and the outcome."""

import http
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

GENERATORS = ("wrk", "geventhttpclient")

Words = tuple[str, str, dict[str, str], bytes]
"""A request: its method, its target, its headers and its body."""


class LoadError(RuntimeError):
    """The load generator failed, or an answer was not one that the job accepts; the figure would be meaningless."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The requests to send."""

    requests: Sequence[bytes]
    """The requests as bytes."""
    cycles: bool
    """True repeats the requests; False sends each once, and running out of them is an error."""
    connections: int = 32
    seconds: float = 5.0
    accepts: tuple[int, ...] = ()
    """The accepted statuses other than 2xx. Counting them costs `wrk` time."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome, as every load generator reports it."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    bad_statuses: int
    """The number of answers from 400, including accepted ones."""
    accepted: int
    """The number of answers with a status that the load accepts."""
    broken: int
    """The number of connections that could not be opened, read or written."""
    timeouts: int
    spent: int
    """The number of times that the requests ran out."""

    @property
    def rps(self) -> float:
        """Return the number of answers a second."""
        return self.requests / self.duration_us * 1_000_000

    def faults(self) -> list[str]:
        """Return the faults of the run."""
        found = {
            "answers with an error status": self.bad_statuses - self.accepted,
            "broken connections": self.broken,
            "timeouts": self.timeouts,
            "clients without a request left to send": self.spent,
        }
        faults = [f"{number} {name}" for name, number in found.items() if number]
        return faults if self.requests else [*faults, "no answers at all"]


class Tally:
    """Counts answers, for a generator in Python."""

    def __init__(self) -> None:
        self.latencies_us: list[int] = []
        self.bad_statuses = self.accepted = self.broken = self.timeouts = self.spent = 0

    def note(self, status: int, took_us: int, accepts: frozenset[int]) -> None:
        """Count an answer."""
        self.latencies_us.append(took_us)
        self.bad_statuses += status >= http.HTTPStatus.BAD_REQUEST
        self.accepted += status in accepts

    def outcome(self, duration_us: int) -> Outcome:
        """Return the outcome."""
        ordered = sorted(self.latencies_us)
        return Outcome(
            requests=len(ordered),
            duration_us=duration_us,
            p50_us=percentile(ordered, 50),
            p99_us=percentile(ordered, 99),
            bad_statuses=self.bad_statuses,
            accepted=self.accepted,
            broken=self.broken,
            timeouts=self.timeouts,
            spent=self.spent,
        )


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the smallest value that is at least as large as `percent` of all values; 0 for no values."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else 0


def write_requests(file: Path, requests: Iterable[bytes]) -> None:
    """Write requests in the format of the load generators: each with its length in front."""
    with file.open("wb") as target:
        for request in requests:
            target.write(b"%d\n%b" % (len(request), request))


def read_requests(file: Path) -> list[bytes]:
    """Read the file that `write_requests` wrote."""
    found = []
    with file.open("rb") as source:
        while length := source.readline():
            found.append(source.read(int(length)))
    return found


def encode_request(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Return a request as bytes (RFC 9112)."""
    if body:
        headers = {**headers, "content-type": "application/json", "content-length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def decode_request(request: bytes) -> Words:
    """Return the parts of a request that `encode_request` returned."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    return method, target, dict(line.split(": ", 1) for line in lines), body


def choose_generator() -> str:
    """Return the load generator of this machine: `wrk` if it is installed, otherwise the one of the extra."""
    wrk, other = GENERATORS
    return wrk if shutil.which(wrk) else other
