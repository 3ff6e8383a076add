"""The load generator for machines without `wrk`: one greenlet with geventhttpclient for each client.

    python -m benchmarks.gevent_load PORT CONNECTIONS SECONDS TIMEOUT_S FILE MODE STATUSES

FILE, MODE, STATUSES and the resulting line of JSON are those of `load.lua`.
This generator is several times slower than `wrk`, so only the CPU time for each request is reliable.
"""

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import msgspec
from geventhttpclient import HTTPClient

from benchmarks.load import Outcome, Tally, Words, decode_request, read_requests


class Generator:
    """Clients that send requests until the time has passed."""

    def __init__(self, port: int, connections: int, timeout_s: float, accepts: frozenset[int]) -> None:
        self.http = HTTPClient(
            "127.0.0.1",
            port,
            concurrency=connections,
            connection_timeout=timeout_s,
            network_timeout=timeout_s,
        )
        self.connections = connections
        self.accepts = accepts
        self.tally = Tally()

    def run(self, requests: Iterator[Words], seconds: float) -> Outcome:
        """Send for some seconds; it ends earlier if there are no `requests` left."""
        began = time.perf_counter()
        until = began + seconds
        gevent.joinall([gevent.spawn(self.send_until, until, requests) for _ in range(self.connections)])
        return self.tally.outcome(round((time.perf_counter() - began) * 1_000_000))

    def send_until(self, until: float, requests: Iterator[Words]) -> None:
        """Send the requests of one client."""
        while (began := time.perf_counter()) < until:
            words = next(requests, None)
            if words is None:
                self.tally.spent += 1
                return
            method, target, headers, body = words
            try:
                answer = self.http.request(method, target, body=body, headers=headers)
                answer.read()
            except TimeoutError:
                self.tally.timeouts += 1
            except OSError:
                self.tally.broken += 1
            else:
                took_us = round((time.perf_counter() - began) * 1_000_000)
                self.tally.note(answer.status_code, took_us, self.accepts)


def main(arguments: list[str]) -> None:
    """Parse the command line, send, and print the outcome."""
    port, connections, seconds, timeout_s, file, mode, statuses = arguments
    prepared = [decode_request(request) for request in read_requests(Path(file))]
    requests = itertools.cycle(prepared) if mode == "cycle" else iter(prepared)
    accepts = frozenset(map(int, filter(None, statuses.split(","))))
    generator = Generator(int(port), int(connections), float(timeout_s), accepts)
    outcome = generator.run(requests, float(seconds))
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
