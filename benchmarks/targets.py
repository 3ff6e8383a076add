"""The targets of Latchkey, and the verdicts of a run. A target without a measurement has no verdict."""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from benchmarks.figures import Run, divide
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

Value = Callable[[Run], float | None]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A target: a figure with a bound."""

    sentence: str
    bound: float
    value: Value
    direction: Literal["at least", "at most"] = "at least"
    unit: str = "times"

    def verdict(self, found: float | None) -> str:
        """Return the verdict, as text."""
        if found is None:
            return "not measured"
        reached = found >= self.bound if self.direction == "at least" else found <= self.bound
        return "reached" if reached else "**not reached**"

    def wanted(self) -> str:
        """Return the bound as text."""
        return f"{self.direction} {self.bound:g} {self.unit}".rstrip()

    def found(self, value: float | None) -> str:
        """Return the figure as text."""
        return "" if value is None else f"{value:.2f} {self.unit}".rstrip()


def rps(one: tuple[str, str], other: tuple[str, str]) -> Value:
    """Return a comparison of requests a second."""
    return lambda run: run.ratio("rps", one, other)


def cpu(one: tuple[str, str], other: tuple[str, str]) -> Value:
    """Return a comparison of the CPU time for a request."""
    return lambda run: run.ratio("cpu_ms", one, other)


def tail(run: Run) -> float | None:
    """Return the ratio of Latchkey's p99 for reads to its p50."""
    found = run.of("read", LATCHKEY)
    return None if found is None else divide(found.p99_ms.median, found.p50_ms.median)


TARGETS = (
    *(
        Target(
            sentence=f"read: requests a second, against {peer}",
            bound=bound,
            value=rps(("read", LATCHKEY), ("read", peer)),
        )
        for peer, bound in ((DEPENDS, 2.5), (LITESTAR, 2.5), (REPLACED, 6.0))
    ),
    Target(
        sentence=f"read: CPU for a request, against the {ASYNCMY}",
        bound=3.0,
        direction="at most",
        value=cpu(("read", LATCHKEY), ("read", ASYNCMY)),
    ),
    Target(
        sentence=f"read from the key cache: requests a second, against the {ASYNCMY}, which queries the database",
        bound=1.0,
        value=rps(("cached", CACHED), ("cached", ASYNCMY)),
    ),
    *(
        Target(
            sentence=f"create: requests a second, against {peer}",
            bound=2.0,
            value=rps(("create", LATCHKEY), ("create", peer)),
        )
        for peer in (DEPENDS, LITESTAR, SCOPED, REPLACED)
    ),
    Target(
        sentence="signed read: requests a second, against a bearer read",
        bound=0.6,
        value=rps(("signed", SIGNED), ("signed", LATCHKEY)),
    ),
    Target(
        sentence="decision of the gate from the key cache: CPU, against the read from the key cache",
        bound=1.3,
        direction="at most",
        value=cpu(("gate", CACHED_GATE), ("gate", CACHED)),
    ),
    Target(sentence="read: p99 for 32 clients, against p50", bound=3.0, direction="at most", value=tail),
)


OWN_TARGETS = tuple(
    Target(
        sentence=f"{job.name}: CPU for a request of {peer}, against {way}",
        bound=bound,
        value=cpu((job.name, peer), (job.name, way)),
    )
    for job in OWN
    for way in (INTO, PREPARED)
    for peer, bound in ((DEPENDS, 4.0), (LITESTAR, 3.0))
)


def judge(targets: Sequence[Target], run: Run) -> list[tuple[str, str, str, str]]:
    """Return a line for each target: its sentence, its bound, the figure, and the verdict."""
    lines = []
    for target in targets:
        value = target.value(run)
        lines.append((target.sentence, target.wanted(), target.found(value), target.verdict(value)))
    return lines
