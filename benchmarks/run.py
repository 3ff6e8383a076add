"""A complete run: the cores, the database, the jobs in turns, and the results."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from benchmarks import machine, rows
from benchmarks.figures import Run
from benchmarks.idle import raise_file_limit
from benchmarks.jobs import Job
from benchmarks.load import choose_generator
from benchmarks.measure import Bench, Failure, Measurement, Tell, run_job

ROWS = 1000
"""How many users and keys the database has, unless a job asks for another."""


def run_jobs(
    jobs: Sequence[Job],
    *,
    rounds: int,
    seconds: float,
    tell: Tell,
    generator: str | None = None,
    keys_in_use: int = rows.KEYS_IN_USE,
) -> Run:
    """Measure the jobs on a new database.

    Args:
        jobs: run one after another, each with its contestants in turns.
        rounds: the number of turns of each contestant.
        seconds: of each turn, without the warm-up.
        tell: called with a line of progress.
        generator: None uses `wrk` if it is installed.
        keys_in_use: the number of keys over which the load is spread.
    """
    cores = machine.share_cores()
    machine.pin_here(cores)
    raise_file_limit(max((one.idle + one.connections for job in jobs for one in job.contestants), default=0))
    generator = generator or choose_generator()
    tell(f"{machine.describe()}; {cores.sentence()}; load by {generator}")
    sizes = [ROWS, *sorted({one.rows for job in jobs for one in job.contestants if one.rows} - {ROWS})]
    measurements: list[Measurement] = []
    failures: list[Failure] = []
    with ExitStack() as running:
        server = running.enter_context(rows.running())
        databases = {}
        for size in sizes:
            tell(f"creating a database of {size:,} users and keys")
            databases[size] = rows.make_database(server, f"rows_{size}", rows=size, keys_in_use=keys_in_use)
        bench = Bench(
            databases=databases, generator=generator, cores=cores, rounds=rounds, seconds=seconds, tell=tell
        )
        for position, job in enumerate(jobs, start=1):
            tell(f"job {position} of {len(jobs)}: {job.name}")
            found, failed = run_job(bench, job)
            measurements += found
            failures += failed
        versions = machine.versions() | {"MariaDB": server.execute("SELECT VERSION()").strip()}
    return Run(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine.describe(),
        cores=cores.sentence(),
        versions=versions,
        generator=generator,
        rounds=rounds,
        seconds=seconds,
        measurements=measurements,
        failures=failures,
    )
