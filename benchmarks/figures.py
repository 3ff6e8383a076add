"""From measurements to figures: the median of the rounds, and how far they spread."""

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.measure import Failure, Measurement


class Figure(msgspec.Struct, frozen=True):
    """A number that was measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """How far the largest is above the smallest, as a part of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a contestant did in a job."""

    job: str
    contestant: str
    rps: Figure
    cpu_ms: Figure
    database_cpu_ms: Figure
    p50_ms: Figure
    p99_ms: Figure
    peak_mib: Figure
    accepted: Figure


FIELDS = tuple(name for name in Summary.__struct_fields__ if name not in {"job", "contestant"})


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, as it is kept in `benchmarks/results/`."""

    date: str
    machine: str
    cores: str
    versions: dict[str, str]
    generator: str
    rounds: int
    seconds: float
    measurements: list[Measurement]
    failures: list[Failure]

    def of(self, job: str, contestant: str) -> Summary | None:
        """Sum up what a contestant did; None when it was not measured in every round."""
        mine = [one for one in self.measurements if (one.job, one.contestant) == (job, contestant)]
        return summarise(mine) if mine and not self.failure(job, contestant) else None

    def failure(self, job: str, contestant: str) -> str | None:
        """Say why a contestant could not be measured."""
        found = (one.reason for one in self.failures if (one.job, one.contestant) == (job, contestant))
        return next(found, None)

    def ratio(self, field: str, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        """Divide a median by that of another job and contestant; None when one of them is not there."""
        above, below = self.of(*one), self.of(*other)
        if above is None or below is None:
            return None
        return divide(getattr(above, field).median, getattr(below, field).median)


def summarise(measurements: Sequence[Measurement]) -> Summary:
    """Gather the rounds of one contestant in one job."""
    first = measurements[0]
    return Summary(
        job=first.job, contestant=first.contestant, **{name: gather(measurements, name) for name in FIELDS}
    )


def gather(measurements: Iterable[Measurement], name: str) -> Figure:
    """Gather one field of the rounds."""
    return Figure(tuple(getattr(one, name) for one in measurements))


def divide(above: float, below: float) -> float | None:
    """Divide; None by nothing."""
    return above / below if below else None
