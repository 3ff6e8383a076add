"""The table of `docs/reliability.md`."""

from collections.abc import Sequence
from pathlib import Path

from tests.faults.deployment import Result

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table of make test-faults -->", "<!-- end -->"
HEAD = (
    "| fault | times | requests | acknowledged | lost | doubled | leaked | worst gap | slowest answer | statuses |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def write_table(results: Sequence[Result]) -> None:
    """Replace the table of the page by these results."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table_of(results)}\n\n{END}{after}")


def table_of(results: Sequence[Result]) -> str:
    """Return the results as a table in Markdown."""
    return "\n".join([HEAD, *(row_of(one) for one in results)])


def row_of(result: Result) -> str:
    statuses = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(result.outcomes.items()))
    cells = (
        result.fault,
        result.times,
        result.requests,
        result.acknowledged,
        result.lost,
        result.doubled,
        result.leaked,
        f"{result.worst_gap_s:.1f} s",
        f"{result.slowest_s:.1f} s",
        statuses,
    )
    return "| " + " | ".join(str(one) for one in cells) + " |"
