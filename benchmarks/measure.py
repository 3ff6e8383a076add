"""Measurements: one load on one server, and rounds in which contestants take turns."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from benchmarks import generators, likeness, processes
from benchmarks.idle import IdleClients
from benchmarks.jobs import Contestant, Job
from benchmarks.load import Load, LoadError, Outcome
from benchmarks.machine import Cores
from benchmarks.rows import Database, database_cpu_s
from benchmarks.servers import BenchmarkServerError, Server, ServerVariant

WARM_UP_S = 2.0
WARM_UP_REQUESTS = 40_000  # more than any server answers during the warm-up
RESERVE = 6  # how many times the requests of the warm-up are prepared; beside another load it was slower by a factor of 3.5

Tell = Callable[[str], None]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant in one round."""

    job: str
    contestant: str
    round: int
    rps: float
    cpu_ms: float
    """The CPU time of the server and its workers for each request, user and system."""
    database_cpu_ms: float
    """The CPU time of the database for each request."""
    p50_ms: float
    p99_ms: float
    peak_mib: float
    accepted: int
    """The number of answers with an accepted status other than 2xx."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant that could not be measured, and the reason."""

    job: str
    contestant: str
    reason: str


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """The common parameters of all measurements of a run."""

    databases: Mapping[int, Database]
    """The databases by their number of rows; the first is the default."""
    generator: str
    cores: Cores
    rounds: int
    seconds: float
    tell: Tell

    def database_of(self, contestant: Contestant) -> Database:
        """Return the database of a contestant."""
        rows = next(iter(self.databases)) if contestant.rows is None else contestant.rows
        return self.databases[rows]

    def server_of(self, contestant: Contestant) -> Server:
        """Return the server of a contestant, not started."""
        cores = self.cores.all if contestant.everywhere else self.cores.server
        return Server(contestant.variant, self.database_of(contestant), cores=cores)


def measure(bench: Bench, job: Job, contestant: Contestant, server: Server, *, round: int) -> Measurement:
    """Warm a server up, load it, and read its cost.

    Raises:
        LoadError: an answer was an error, or missing.
    """
    warm_up = send(bench, contestant, server, WARM_UP_S, WARM_UP_REQUESTS)
    count = int(warm_up.rps * bench.seconds * RESERVE) + 1000
    (request, *_) = contestant.make(server.database, server.port, 1)
    with IdleClients(server.port, contestant.idle, request):
        processes.reset_peak(server.pid)
        before, database_before = server.cpu_s(), database_cpu_s(server.database)
        outcome = send(bench, contestant, server, bench.seconds, count)
        spent, database_spent = server.cpu_s() - before, database_cpu_s(server.database) - database_before
        peak_mib = processes.peak_mib(server.pid)
    return Measurement(
        job=job.name,
        contestant=contestant.name,
        round=round,
        rps=outcome.rps,
        cpu_ms=spent / outcome.requests * 1000,
        database_cpu_ms=database_spent / outcome.requests * 1000,
        p50_ms=outcome.p50_us / 1000,
        p99_ms=outcome.p99_us / 1000,
        peak_mib=peak_mib,
        accepted=outcome.accepted,
    )


def send(bench: Bench, contestant: Contestant, server: Server, seconds: float, count: int) -> Outcome:
    """Send a load to a contestant; the requests are created just before, because signatures expire."""
    load = Load(
        requests=contestant.make(server.database, server.port, count),
        cycles=contestant.cycles,
        connections=contestant.connections,
        seconds=seconds,
        accepts=contestant.accepts,
    )
    return generators.run(bench.generator, server.port, load)


def run_job(bench: Bench, job: Job) -> tuple[list[Measurement], list[Failure]]:
    """Measure the contestants of a job in turns; one that fails once is excluded and reported."""
    found: list[Measurement] = []
    failures: list[Failure] = []
    with ExitStack() as running:
        references = References(bench.cores, running)
        servers: dict[str, tuple[Contestant, Server]] = {}

        def fail(contestant: Contestant, reason: str) -> None:
            servers.pop(contestant.name, None)
            bench.tell(f"{job.name}: {contestant.name} FAILED: {reason}")
            failures.append(Failure(job=job.name, contestant=contestant.name, reason=reason))

        answer: Any = None
        for contestant in job.contestants:
            server = bench.server_of(contestant)
            try:
                running.enter_context(server)
                references.require_alike(server)
                if job.same_answer:
                    (request, *_) = contestant.make(server.database, server.port, 1)
                    answer = likeness.require_same_answer(server, request, answer)
            except (BenchmarkServerError, likeness.UnlikeError) as error:
                fail(contestant, str(error))
            else:
                servers[contestant.name] = contestant, server
        began = time.monotonic()
        for number in range(1, bench.rounds + 1):
            for contestant, server in list(servers.values()):
                try:
                    one = measure(bench, job, contestant, server, round=number)
                except LoadError as error:
                    fail(contestant, f"{error}; its output ends with: {server.last_words()}")
                    continue
                found.append(one)
                turns = bench.rounds * len(servers)
                left_s = (time.monotonic() - began) / len(found) * max(turns - len(found), 0)
                bench.tell(
                    f"{job.name} {number}/{bench.rounds} {contestant.name}: {one.rps:.0f} rps, "
                    f"{one.cpu_ms:.3f} ms CPU, p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms; "
                    f"{left_s:.0f} s of this job left"
                )
    return found, failures


class References:
    """Unmodified Latchkey servers, one for each database, started on first use, for comparison with the contestants."""

    def __init__(self, cores: Cores, running: ExitStack) -> None:
        self.cores = cores
        self.running = running
        self._servers: dict[str, Server] = {}

    def require_alike(self, server: Server) -> None:
        """Require that a server gives the same answers as Latchkey.

        Raises:
            likeness.UnlikeError: it does not.
        """
        database = server.database
        if database.url not in self._servers:
            latchkey = Server(ServerVariant(module="latchkey"), database, cores=self.cores.server)
            self._servers[database.url] = self.running.enter_context(latchkey)
        likeness.require_alike(self._servers[database.url], server)
