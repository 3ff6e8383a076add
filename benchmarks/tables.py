"""Tables in Markdown."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.figures import RepeatedFigure, Run, Summary, divide
from benchmarks.jobs import Job
from benchmarks.targets import Target, judge

NOTHING = ""
HEAD = (
    "server",
    "requests/s",
    "spread",
    "CPU ms",
    "database CPU ms",
    "p50 ms",
    "p99 ms",
    "peak MiB",
    "requests/s ratio",
    "CPU ratio",
)
Column = tuple[str, Callable[[Summary], str]]
"""The heading, and the text for a contestant."""

LONGEST_REASON = 120  # characters; the complete reason is in the raw results


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with the first column aligned to the left and numbers to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def number(value: float) -> str:
    """Return a number with three significant digits and separated thousands."""
    if abs(value) >= 100:  # noqa: PLR2004 - from there on nothing behind the point counts
        return f"{value:,.0f}"
    return f"{value:.3g}"


REFUSED: Column = ("503", lambda one: number(one.accepted.median))


def percent(figure: RepeatedFigure) -> str:
    """Return the spread of the rounds."""
    return f"{figure.spread * 100:.0f} %"


def times(value: float | None) -> str:
    """Return a ratio."""
    return NOTHING if value is None else f"{value:.2f}"


def cells(one: Summary) -> list[str]:
    """Return the measured values of a contestant."""
    medians = (one.cpu_ms, one.database_cpu_ms, one.p50_ms, one.p99_ms, one.peak_mib)
    return [number(one.rps.median), percent(one.rps), *(number(figure.median) for figure in medians)]


def job_table(run: Run, job: Job, more: Sequence[Column] = ()) -> str:
    """Return the table of a job.

    Each line is compared with a contestant: the ratio of requests a second is that of the contestant to the line's, and
    the ratio of CPU time that of the line to the contestant's. Above 1 the contestant is better.

    Args:
        run: the results.
        job: its contestants are the lines.
        more: additional columns.
    """
    first = job.contestants[0].name
    rows = []
    for contestant in job.contestants:
        one, base = run.of(job.name, contestant.name), run.of(job.name, contestant.beside or first)
        if one is None:
            reason = run.failure(job.name, contestant.name) or "not measured"
            rows.append(
                [contestant.name, f"failed: {shorten(reason)}", *[NOTHING] * (len(HEAD) + len(more) - 2)]
            )
            continue
        ratios = [NOTHING, NOTHING]
        if base is not None:
            faster, dearer = (
                divide(base.rps.median, one.rps.median),
                divide(one.cpu_ms.median, base.cpu_ms.median),
            )
            ratios = [times(faster), times(dearer)]
        rows.append([contestant.name, *cells(one), *ratios, *(write(one) for _, write in more)])
    return table([*HEAD, *(name for name, _ in more)], rows)


def shorten(reason: str) -> str:
    """Return the beginning of a reason."""
    return reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + "…"


def targets_table(targets: Sequence[Target], run: Run) -> str:
    """Return a table of the targets, and whether the run reached them."""
    return table(("figure", "target", "result", ""), judge(targets, run))


def circumstances(run: Run) -> str:
    """Return the date, machine and parameters of a run, one sentence a line."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines = [
        f"Measured on {run.date}: {run.machine}; {run.cores}.",
        f"Medians of {run.rounds} rounds of {run.seconds:g} s each, in turns, after a warm-up; load by {run.generator}.",
        f"{versions}.",
    ]
    if run.generator != "wrk":
        lines.append("This generator is slower than the fastest servers: trust the CPU time for a request.")
    return "\n".join(lines)
