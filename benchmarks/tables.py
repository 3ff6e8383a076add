"""Tables in Markdown."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.figures import Figure, Run, Summary, divide
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
"""What stands above, and what is written of a contestant."""

LONGEST_REASON = 120  # characters; the whole reason is in the raw results


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table: the first column to the left, numbers to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def number(value: float) -> str:
    """Write a number with three digits that count, and thousands apart."""
    if abs(value) >= 100:  # noqa: PLR2004 - from there on nothing behind the point counts
        return f"{value:,.0f}"
    return f"{value:.3g}"


REFUSED: Column = ("503", lambda one: number(one.accepted.median))


def percent(figure: Figure) -> str:
    """Write how far the rounds spread."""
    return f"{figure.spread * 100:.0f} %"


def times(value: float | None) -> str:
    """Write a ratio."""
    return NOTHING if value is None else f"{value:.2f}"


def cells(one: Summary) -> list[str]:
    """Write what was measured of a contestant."""
    medians = (one.cpu_ms, one.database_cpu_ms, one.p50_ms, one.p99_ms, one.peak_mib)
    return [number(one.rps.median), percent(one.rps), *(number(figure.median) for figure in medians)]


def job_table(run: Run, job: Job, more: Sequence[Column] = ()) -> str:
    """Write a job's table.

    The ratios are those of the contestant that a line is compared with: its requests a second by those of the line,
    and the CPU time of the line by its. Where they are above 1 it is the better one.

    Args:
        run: what was measured.
        job: whose contestants are the lines.
        more: columns beside the usual ones.
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
    """Keep the beginning of a reason."""
    return reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + "…"


def targets_table(targets: Sequence[Target], run: Run) -> str:
    """Write which targets the run reached."""
    return table(("figure", "target", "result", ""), judge(targets, run))


def circumstances(run: Run) -> str:
    """Say when, where and with what a run was made, one sentence a line."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines = [
        f"Measured on {run.date}: {run.machine}; {run.cores}.",
        f"Medians of {run.rounds} rounds of {run.seconds:g} s each, in turns, after a warm-up; load by {run.generator}.",
        f"{versions}.",
    ]
    if run.generator != "wrk":
        lines.append("This generator is slower than the fastest servers: trust the CPU time for a request.")
    return "\n".join(lines)
