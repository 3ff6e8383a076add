"""The tables of a run."""

import pytest

from benchmarks.jobs import Contestant, Job
from benchmarks.servers import ServerVariant
from benchmarks.tables import REFUSED, circumstances, job_table, number, table
from tests.benchmarks.runs import made, measured, slower_generator

JOB = Job(
    name="read",
    title="a read",
    contestants=(
        Contestant(name="ours", variant=ServerVariant(module="latchkey")),
        Contestant(name="theirs", variant=ServerVariant(module="bare_asgi")),
        Contestant(name="theirs, larger", variant=ServerVariant(module="bare_asgi"), beside="theirs"),
    ),
)


def cells(text: str) -> list[list[str]]:
    """Return the cells of a table below its head, by line."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_a_table_aligns_numbers_to_the_right_and_keeps_its_columns() -> None:
    text = table(("server", "ms"), [("a | b", "1")])

    assert text == "| server | ms |\n| --- | ---: |\n| a &#124; b | 1 |"


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0"), (0.05321, "0.0532"), (9.999, "10"), (42.42, "42.4"), (99.96, "100"), (123456.7, "123,457")],
)
def test_a_number_has_three_digits_that_count(value: float, written: str) -> None:
    assert number(value) == written


def test_a_line_is_compared_with_the_first_or_with_whom_it_names() -> None:
    run = made(
        measured("read", "ours", [900, 1000, 1100], cpu_ms=1.0),
        measured("read", "theirs", [250, 250, 250], cpu_ms=4.0),
        measured("read", "theirs, larger", [125, 125, 125], cpu_ms=6.0),
    )

    ours, theirs, larger = cells(job_table(run, JOB))

    assert ours == ["ours", "1,000", "20 %", "1", "0.25", "10", "20", "90", "1.00", "1.00"]
    assert theirs[-2:] == ["4.00", "4.00"]
    assert larger[-2:] == ["2.00", "1.50"]


def test_a_failed_contestant_is_listed_with_the_reason() -> None:
    run = made(
        measured("read", "ours", [900]), failures={("read", "theirs"): "it did not start: " + "x" * 500}
    )

    _, theirs, larger = cells(job_table(run, JOB, (REFUSED,)))

    assert theirs[1].startswith("failed: it did not start: xxx")
    assert theirs[1].endswith("…")
    assert len(theirs) == len(larger) == 11
    assert larger[1] == "failed: not measured"


def test_a_line_has_no_ratio_when_the_other_failed() -> None:
    run = made(measured("read", "theirs", [900]), failures={("read", "ours"): "3 timeouts"})

    _, theirs, _ = cells(job_table(run, JOB))

    assert theirs[1] == "900"
    assert theirs[-2:] == ["", ""]


def test_the_circumstances_say_when_where_and_with_what() -> None:
    run = made(measured("read", "ours", [900]))

    text = circumstances(run)

    for said in ("2026-01-02", "a machine", "server on core 0", "3 rounds of 5 s", "wrk", "MariaDB 10.11"):
        assert said in text
    assert "trust the CPU" not in text
    assert "trust the CPU" in circumstances(slower_generator(run))
