"""The order of the turns, and the handling of contestants that fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.jobs import Contestant, Job
from benchmarks.likeness import UnlikeError
from benchmarks.load import LoadError
from benchmarks.machine import Cores
from benchmarks.measure import Bench, References, run_job
from benchmarks.rows import Database
from benchmarks.servers import BenchmarkServerError, Server, ServerVariant
from tests.benchmarks.runs import measured

DATABASE = Database(url="", keyring="", rows=10, bearer=(), signed=(), pid=0)
LARGE = Database(url="", keyring="", rows=100, bearer=(), signed=(), pid=0)
CORES = Cores(frozenset({0}), frozenset({1}))


def contestant(name: str, **more: Any) -> Contestant:
    return Contestant(name=name, variant=ServerVariant(module=name), **more)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def bench(told: list[str]) -> Bench:
    return Bench(
        databases={10: DATABASE, 100: LARGE},
        generator="wrk",
        cores=CORES,
        rounds=3,
        seconds=1.0,
        tell=told.append,
    )


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the events of servers that do nothing; a server whose module is a fault fails in that way."""
    events: list[str] = []

    @contextmanager
    def serving(server: Server) -> Iterator[Any]:
        if server.variant.module == "dead":
            raise BenchmarkServerError("dead did not start: no such table")
        events.append(f"start {server.variant.module}")
        yield server
        events.append(f"stop {server.variant.module}")

    class Fake(Server):
        def __enter__(self) -> Any:
            self.serving = serving(self)
            return self.serving.__enter__()

        def __exit__(self, *error: object) -> None:
            self.serving.__exit__(*error)  # type: ignore[arg-type]  # as they come

        def last_words(self) -> str:
            return "a last line"

    def fake_measure(bench: Bench, job: Job, one: Contestant, server: Server, *, round: int) -> Any:
        events.append(f"{one.name} {round}")
        if one.name == "failing" and round == 2:
            raise LoadError("3 timeouts")
        return measured(job.name, one.name, [100.0] * round)[-1]

    def require_alike(self: References, server: Server) -> None:
        if server.variant.module == "unlike":
            raise UnlikeError("unlike reads 500 instead of 200")

    monkeypatch.setattr(measure, "Server", Fake)
    monkeypatch.setattr(measure, "measure", fake_measure)
    monkeypatch.setattr(References, "require_alike", require_alike)
    return events


def test_the_servers_run_side_by_side_and_are_measured_in_turns(bench: Bench, events: list[str]) -> None:
    job = Job(name="read", title="", contestants=tuple(map(contestant, ("a", "b", "c"))))

    found, failures = run_job(bench, job)

    assert events == [
        *("start a", "start b", "start c"),
        *("a 1", "b 1", "c 1", "a 2", "b 2", "c 2", "a 3", "b 3", "c 3"),
        *("stop c", "stop b", "stop a"),
    ]
    assert len(found) == 9
    assert failures == []


def test_a_contestant_that_fails_is_left_out(bench: Bench, events: list[str], told: list[str]) -> None:
    job = Job(name="read", title="", contestants=tuple(map(contestant, ("dead", "a", "unlike", "failing"))))

    found, failures = run_job(bench, job)

    assert [event for event in events if event[-1].isdigit()] == [
        "a 1",
        "failing 1",
        "a 2",
        "failing 2",
        "a 3",
    ]
    assert {(one.contestant, one.reason) for one in failures} == {
        ("dead", "dead did not start: no such table"),
        ("unlike", "unlike reads 500 instead of 200"),
        ("failing", "3 timeouts; its output ends with: a last line"),
    }
    assert sum("FAILED" in line for line in told) == 3
    assert [one.contestant for one in found] == ["a", "failing", "a", "a"]


def test_a_contestant_chooses_its_database_and_its_cores(bench: Bench) -> None:
    usual = bench.server_of(contestant("a"))
    large = bench.server_of(contestant("a", rows=100, everywhere=True))

    assert (usual.database, usual.cores) == (DATABASE, CORES.server)
    assert (large.database, large.cores) == (LARGE, frozenset({0, 1}))
