"""The soak: many requests of all kinds to one server, whose memory must not grow, and which must end without remainders."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from benchmarks import generators, machine, processes, requests, rows
from benchmarks.idle import raise_file_limit
from benchmarks.load import Load, LoadError, Outcome, choose_generator
from benchmarks.peers.latchkey import REMAINDER
from benchmarks.servers import Server, ServerVariant
from benchmarks.tables import number, table

REQUESTS = 300_000
SETTLED_AFTER = 50_000
GROWTH_LIMIT_MIB = 2.0
NOT_REACHED = "**not reached**"
PART_S = 10.0
FIRST_PART = 60_000  # more requests than any server answers in a part
RESERVE = 3
ACCEPTS = (401, 404)
REFUSED_PART = 0.2  # in the mixture, one of ten requests is answered 401 and one 404
TOLERANCE = 0.02

# The unknown key of the mixture fails more often than the limit of failures allows, from the same address as all calls.
SETTINGS = {"LATCHKEY_AUTH_FAILURES_PER_MIN": "1000000", "TELL_REMAINDER": "1"}


class Remainder(msgspec.Struct, frozen=True):
    """The sessions and connections that the server reports when it is stopped, before it closes the database."""

    sessions: int
    """In the registry."""
    checked_out: int
    """Connections of all pools."""


class Sample(msgspec.Struct, frozen=True):
    """The memory after a number of requests."""

    requests: int
    rss_mib: float


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a soak."""

    date: str
    machine: str
    generator: str
    samples: list[Sample]
    settled_after: int
    remainder: Remainder

    @property
    def settled(self) -> Sample | None:
        """Return the first sample that counts for growth; None when the soak was too short to have a later one."""
        return next((one for one in self.samples[:-1] if one.requests >= self.settled_after), None)

    @property
    def growth_mib(self) -> float | None:
        """Return the growth of the memory; None when the soak was too short."""
        return None if self.settled is None else self.samples[-1].rss_mib - self.settled.rss_mib

    def verdict(self) -> str:
        """Return the verdict, as text."""
        if self.remainder != Remainder(0, 0):
            return NOT_REACHED
        if self.growth_mib is None:
            return "too short to tell"
        return "reached" if self.growth_mib <= GROWTH_LIMIT_MIB else NOT_REACHED


def run_soak(count: int, settled_after: int, tell: Callable[[str], None], *, part_s: float = PART_S) -> Soak:
    """Send the requests in parts, and record the memory.

    Raises:
        LoadError: an answer does not belong to the mixture, or the server did not report its remainder.
    """
    cores = machine.share_cores()
    machine.pin_here(cores)
    raise_file_limit(0)
    generator = choose_generator()
    samples: list[Sample] = []
    with rows.running() as database_server:
        database = rows.make_database(database_server, "soak", rows=1000)
        with Server(
            ServerVariant(module="latchkey", environ=SETTINGS), database, cores=cores.server
        ) as server:
            sent, wanted = 0, FIRST_PART
            while sent < count:
                load = Load(
                    requests=requests.mixture(database, server.port, wanted),
                    cycles=False,
                    seconds=part_s,
                    accepts=ACCEPTS,
                )
                outcome = generators.run(generator, server.port, load)
                require_mixture(outcome)
                sent += outcome.requests
                wanted = outcome.requests * RESERVE + 1000
                samples.append(Sample(sent, processes.rss_mib(server.pid)))
                tell(
                    f"{sent:,} of {count:,} requests, {samples[-1].rss_mib:.1f} MiB, {outcome.rps:.0f} a second"
                )
            remainder = find_remainder(server.stop())
    return Soak(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine.describe(),
        generator=generator,
        samples=samples,
        settled_after=settled_after,
        remainder=remainder,
    )


def require_mixture(outcome: Outcome) -> None:
    """Raise an error for a part without the expected number of 401 and 404: its requests would be different ones."""
    part = outcome.accepted / outcome.requests
    if abs(part - REFUSED_PART) > TOLERANCE:
        raise LoadError(f"{part:.0%} of the requests were answered {ACCEPTS}, instead of {REFUSED_PART:.0%}")


def find_remainder(text: str) -> Remainder:
    """Parse the remainder in the server's output."""
    for line in text.splitlines():
        if line.startswith(REMAINDER):
            return msgspec.json.decode(line.removeprefix(REMAINDER), type=Remainder)
    raise LoadError(f"the server did not report its remainder: {text[-500:]}")


def soak_table(soak: Soak) -> str:
    """Return the result as a table."""
    samples = dict.fromkeys((soak.samples[0], soak.settled, soak.samples[-1]))
    memory = [
        (f"memory after {one.requests:,} requests", f"{number(one.rss_mib)} MiB")
        for one in samples
        if one is not None
    ]
    growth = "" if soak.growth_mib is None else f"{soak.growth_mib:.2f} MiB"
    lines = [
        *memory,
        (f"growth, at most {GROWTH_LIMIT_MIB:g} MiB", growth),
        ("sessions in the registry at the end", str(soak.remainder.sessions)),
        ("connections checked out at the end", str(soak.remainder.checked_out)),
        ("verdict", soak.verdict()),
    ]
    measured = f"Measured on {soak.date}: {soak.machine}; load by {soak.generator}."
    return f"{measured}\n\n{table(('soak', ''), lines)}"
