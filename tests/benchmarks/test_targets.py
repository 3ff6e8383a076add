"""Whether a target is reached depends only on the run."""

from typing import Any, Literal

import pytest

from benchmarks import growth, targets
from benchmarks.jobs import (
    ASYNCMY,
    CACHED,
    CACHED_GATE,
    DEPENDS,
    INTO,
    LATCHKEY,
    LITESTAR,
    OWN,
    PREPARED,
    REPLACED,
    SCOPED,
    SIGNED,
)
from benchmarks.targets import Target, judge
from tests.benchmarks.runs import made, measured


@pytest.mark.parametrize(
    ("direction", "found", "verdict"),
    [
        ("at least", 2.5, "reached"),
        ("at least", 2.499, "**not reached**"),
        ("at most", 2.5, "reached"),
        ("at most", 2.501, "**not reached**"),
        ("at least", None, "not measured"),
    ],
)
def test_a_bound_belongs_to_what_is_reached(
    direction: Literal["at least", "at most"], found: float | None, verdict: str
) -> None:
    target = Target(sentence="", bound=2.5, direction=direction, value=lambda _: found)

    assert target.verdict(found) == verdict


def run_of(ours: float, theirs: float) -> Any:
    """Return a run in which Latchkey answers `ours` requests a second and every other contestant `theirs`."""
    return made(
        *(
            measured("read", name, [theirs], cpu_ms=10 / theirs)
            for name in (ASYNCMY, DEPENDS, LITESTAR, REPLACED)
        ),
        *(measured("create", name, [theirs]) for name in (DEPENDS, LITESTAR, SCOPED, REPLACED)),
        *(
            measured(job.name, peer, [theirs], cpu_ms=10 / theirs)
            for job in OWN
            for peer in (DEPENDS, LITESTAR)
        ),
        *(measured(job.name, way, [ours], cpu_ms=10 / ours) for job in OWN for way in (INTO, PREPARED)),
        measured("cached", ASYNCMY, [theirs]),
        measured("signed", LATCHKEY, [theirs]),
        measured("read", LATCHKEY, [ours], cpu_ms=10 / ours, p99_ms=20.0 * theirs / ours),
        measured("create", LATCHKEY, [ours]),
        measured("cached", CACHED, [ours]),
        measured("signed", SIGNED, [ours]),
        measured("gate", CACHED, [theirs], cpu_ms=10 / theirs),
        measured("gate", CACHED_GATE, [ours], cpu_ms=10 / ours),
    )


@pytest.mark.parametrize(
    ("run", "verdict"),
    [(run_of(700, 100), "reached"), (run_of(10, 100), "**not reached**"), (made(), "not measured")],
    ids=["fast", "slow", "not there"],
)
def test_every_target_of_the_peers_follows_from_the_run(run: Any, verdict: str) -> None:
    lines = judge([*targets.TARGETS, *targets.OWN_TARGETS], run)

    assert len(lines) == 28
    assert {line[-1] for line in lines} == {verdict}


def test_the_figures_stand_beside_their_bounds() -> None:
    found = {line[0]: line[1:3] for line in judge(targets.TARGETS, run_of(700, 100))}

    assert found[f"read: requests a second, against {DEPENDS}"] == ("at least 2.5 times", "7.00 times")
    assert found[f"read: CPU for a request, against the {ASYNCMY}"] == ("at most 3 times", "0.14 times")


@pytest.mark.parametrize(
    ("large", "verdict"), [(870, "reached"), (869, "**not reached**")], ids=["within 1.15", "above"]
)
def test_a_million_keys_may_cost_a_little_more(large: int, verdict: str) -> None:
    run = made(
        measured("database", f"{LATCHKEY}, keys: 1,000", [1000]),
        measured("database", f"{LATCHKEY}, keys: 1,000,000", [large]),
    )

    clients, database = judge(growth.TARGETS, run)

    assert clients[-1] == "not measured"
    assert database[-1] == verdict


def test_512_clients_are_served_when_their_measurement_stands() -> None:
    name = f"{LATCHKEY}, clients: 512"

    served, _ = judge(growth.TARGETS, made(measured("clients", name, [500])))
    failed, _ = judge(growth.TARGETS, made(failures={("clients", name): "7 timeouts"}))

    assert served[-1] == "reached"
    assert failed[-1] == "not measured"
