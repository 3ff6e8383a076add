"""The command `python -m benchmarks`, which `make bench`, `make bench-growth` and `make bench-soak` run."""

import signal
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from benchmarks import growth, jobs, soak, targets
from benchmarks.document import FULL_ROUNDS, RESULTS, keep, write_part
from benchmarks.figures import Run
from benchmarks.jobs import Job
from benchmarks.load import GENERATORS, LoadError
from benchmarks.rows import KEYS_IN_USE
from benchmarks.run import run_jobs
from benchmarks.tables import REFUSED, Column, circumstances, job_table, targets_table
from benchmarks.targets import Target


class RunKind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of run, and the part of the document that it writes."""

    jobs: tuple[Job, ...]
    targets: tuple[Target, ...]
    columns: tuple[Column, ...] = ()
    keys_in_use: int = KEYS_IN_USE


RUN_KINDS = {
    "peers": RunKind(jobs=jobs.JOBS, targets=targets.TARGETS),
    "own": RunKind(jobs=jobs.OWN, targets=targets.OWN_TARGETS),
    "growth": RunKind(
        jobs=growth.JOBS, targets=growth.TARGETS, columns=(REFUSED,), keys_in_use=growth.KEYS_IN_USE
    ),
}

write_option = click.option("--write", is_flag=True, help="Write the document, even after a short run.")
results_option = click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="The folder for the raw results."
)


@click.group()
def main() -> None:
    """Measure Latchkey beside its peers."""
    # Handled like Ctrl-C, so that the servers are stopped; `make` passes SIGTERM on, and a shell may ignore Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@main.command()
@click.argument("name", metavar="KIND", type=click.Choice(list(RUN_KINDS)))
@click.option("--rounds", type=click.IntRange(min=1), default=FULL_ROUNDS, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True)
@click.option("--jobs", "job_names", default="", help="Names separated by commas; by default, all jobs.")
@click.option("--peers", default="", help="Modules separated by commas; by default, all peers.")
@click.option("--generator", type=click.Choice(GENERATORS), help="By default wrk, if it is installed.")
@results_option
@write_option
def run(
    *,
    name: str,
    rounds: int,
    seconds: float,
    job_names: str,
    peers: str,
    generator: str | None,
    results: Path,
    write: bool,
) -> None:
    """Measure in rounds: KIND `peers` compares Latchkey with others, `own` the code of a team; `growth` measures how cost grows.

    A complete run of at least five rounds writes its part of docs/performance.md; any other run prints it.
    """
    kind = RUN_KINDS[name]
    try:
        chosen = jobs.choose(kind.jobs, split(job_names), split(peers))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    found = run_jobs(
        chosen,
        rounds=rounds,
        seconds=seconds,
        tell=tell,
        generator=generator,
        keys_in_use=kind.keys_in_use,
    )
    whole = chosen == list(kind.jobs) and rounds >= FULL_ROUNDS and not found.failures
    publish(name, found, text_of(kind, found, chosen), results, write=write or whole)
    for failure in found.failures:
        tell(f"FAILED: {failure.job}: {failure.contestant}: {failure.reason}")
    sys.exit(1 if found.failures else 0)


@main.command("soak")
@click.option("--requests", "count", type=click.IntRange(min=1), default=soak.REQUESTS, show_default=True)
@click.option("--settled-after", type=click.IntRange(min=1), default=soak.SETTLED_AFTER, show_default=True)
@results_option
@write_option
def soak_command(*, count: int, settled_after: int, results: Path, write: bool) -> None:
    """Send many requests of all kinds to one server, and check its memory and its remaining sessions at the end."""
    try:
        found = soak.run_soak(count, settled_after, tell)
    except LoadError as error:
        raise click.ClickException(str(error)) from None
    publish("soak", found, soak.soak_table(found), results, write=write or count >= soak.REQUESTS)
    sys.exit(1 if found.verdict() == soak.NOT_REACHED else 0)


def tell(line: str) -> None:
    """Print progress on standard error."""
    click.echo(line, err=True)


def split(text: str) -> list[str]:
    """Return the parts of a text that is separated by commas."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def text_of(kind: RunKind, found: Run, chosen: list[Job]) -> str:
    """Return the results as text, in the form of the document."""
    return "\n\n".join(
        [
            circumstances(found),
            *(f"### {job.name}: {job.title}\n\n{job_table(found, job, kind.columns)}" for job in chosen),
            f"### Targets\n\n{targets_table(kind.targets, found)}",
        ]
    )


def publish(name: str, found: Any, text: str, results: Path, *, write: bool) -> None:
    """Store the raw results, and write the text into the document or print it."""
    tell(f"raw results: {keep(name, found, results)}")
    if write:
        write_part(name, text)
        tell("written to docs/performance.md")
    else:
        click.echo(text)


if __name__ == "__main__":
    main()
