"""Statistics: the median of the rounds, and their spread."""

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.measure import Failure, Measurement


class RepeatedFigure(msgspec.Struct, frozen=True):
    """A number that was measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Return the difference between the largest and the smallest value, relative to the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a contestant in a job."""

    job: str
    contestant: str
    rps: RepeatedFigure
    cpu_ms: RepeatedFigure
    database_cpu_ms: RepeatedFigure
    p50_ms: RepeatedFigure
    p99_ms: RepeatedFigure
    peak_mib: RepeatedFigure
    accepted: RepeatedFigure


FIELDS = tuple(name for name in Summary.__struct_fields__ if name not in {"job", "contestant"})


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A complete run, as it is stored in `benchmarks/results/`."""

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
        """Return the summary of a contestant; None when it was not measured in every round."""
        mine = [one for one in self.measurements if (one.job, one.contestant) == (job, contestant)]
        return summarise(mine) if mine and not self.failure(job, contestant) else None

    def failure(self, job: str, contestant: str) -> str | None:
        """Return the reason why a contestant could not be measured."""
        found = (one.reason for one in self.failures if (one.job, one.contestant) == (job, contestant))
        return next(found, None)

    def ratio(self, field: str, one: tuple[str, str], other: tuple[str, str]) -> float | None:
        """Return a median divided by that of another job and contestant; None when either does not exist."""
        above, below = self.of(*one), self.of(*other)
        if above is None or below is None:
            return None
        return divide(getattr(above, field).median, getattr(below, field).median)


def summarise(measurements: Sequence[Measurement]) -> Summary:
    """Summarise the rounds of one contestant in one job."""
    first = measurements[0]
    return Summary(
        job=first.job, contestant=first.contestant, **{name: gather(measurements, name) for name in FIELDS}
    )


def gather(measurements: Iterable[Measurement], name: str) -> RepeatedFigure:
    """Return one field of all rounds."""
    return RepeatedFigure(tuple(getattr(one, name) for one in measurements))


def divide(above: float, below: float) -> float | None:
    """Return the quotient; None for a missing number."""
    return above / below if below else None
