"""From measurements to figures."""

import msgspec
import pytest

from benchmarks.figures import RepeatedFigure, Run
from tests.benchmarks.runs import made, measured


@pytest.mark.parametrize(
    ("values", "median", "spread"),
    [
        ((100.0,), 100.0, 0.0),
        ((90.0, 100.0, 130.0), 100.0, 0.4),
        ((130.0, 90.0, 100.0, 110.0), 105.0, 40 / 105),
        ((0.0, 0.0, 0.0), 0.0, 0.0),
    ],
    ids=["one", "odd", "even, in any order", "nothing"],
)
def test_a_figure_is_the_median_and_how_far_the_rounds_spread(
    values: tuple[float, ...], median: float, spread: float
) -> None:
    figure = RepeatedFigure(values)

    assert figure.median == median
    assert figure.spread == pytest.approx(spread)


def test_a_summary_gathers_the_rounds_of_one_contestant_in_one_job() -> None:
    run = made(
        measured("read", "ours", [900, 1000, 1300]),
        measured("read", "theirs", [10, 20, 30]),
        measured("create", "ours", [1, 2, 3]),
    )

    summary = run.of("read", "ours")

    assert summary is not None
    assert summary.rps.values == (900, 1000, 1300)
    assert summary.p50_ms.median == 10.0


def test_a_contestant_that_failed_in_a_later_round_has_no_figures() -> None:
    run = made(measured("read", "ours", [900]), failures={("read", "ours"): "3 timeouts"})

    assert run.of("read", "ours") is None
    assert run.failure("read", "ours") == "3 timeouts"


@pytest.mark.parametrize(
    ("other", "ratio"),
    [(("read", "theirs"), 50.0), (("read", "nobody"), None), (("read", "idle"), None)],
    ids=["both there", "one missing", "by nothing"],
)
def test_a_ratio_is_that_of_the_medians(other: tuple[str, str], ratio: float | None) -> None:
    run = made(
        measured("read", "ours", [900, 1000, 1300]),
        measured("read", "theirs", [10, 20, 30]),
        measured("read", "idle", [0, 0, 0]),
    )

    assert run.ratio("rps", ("read", "ours"), other) == ratio


def test_raw_results_are_the_whole_run() -> None:
    run = made(measured("read", "ours", [900]), failures={("read", "theirs"): "it said nothing"})

    assert msgspec.json.decode(msgspec.json.encode(run), type=Run) == run
