"""Fictitious runs, for tests of their evaluation."""

from collections.abc import Mapping, Sequence

import msgspec

from benchmarks.figures import Run
from benchmarks.measure import Failure, Measurement


def measured(
    job: str, contestant: str, rps: Sequence[float], *, cpu_ms: float = 1.0, p99_ms: float = 20.0
) -> list[Measurement]:
    """Return one measurement for each number of requests a second."""
    return [
        Measurement(
            job=job,
            contestant=contestant,
            round=number,
            rps=value,
            cpu_ms=cpu_ms,
            database_cpu_ms=0.25,
            p50_ms=10.0,
            p99_ms=p99_ms,
            peak_mib=90.0,
            accepted=0,
        )
        for number, value in enumerate(rps, start=1)
    ]


def made(*measurements: list[Measurement], failures: Mapping[tuple[str, str], str] | None = None) -> Run:
    """Return a run with these measurements, and failures by job and contestant."""
    return Run(
        date="2026-01-02",
        machine="a machine",
        cores="server on core 0",
        versions={"Python": "3.11.7", "MariaDB": "10.11"},
        generator="wrk",
        rounds=3,
        seconds=5.0,
        measurements=[one for some in measurements for one in some],
        failures=[
            Failure(job=job, contestant=contestant, reason=reason)
            for (job, contestant), reason in (failures or {}).items()
        ],
    )


def slower_generator(run: Run) -> Run:
    """Return the same run with the other generator."""
    return msgspec.structs.replace(run, generator="geventhttpclient")
