"""The CPU time and memory of processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import processes
from benchmarks.machine import Cores, describe, versions

# A parent that starts a child; each uses some CPU time and memory, reports it, and waits.
WORK = """
import subprocess, sys, time
if sys.argv[1:]:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
until = time.process_time() + 0.2
while time.process_time() < until:
    pass
memory = bytearray(b"x") * (64 * 1024 * 1024)
del memory
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def working() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", WORK, WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")


def test_a_child_counts_with_its_parent(working: int) -> None:
    assert len(processes.tree(working)) == 2
    assert processes.cpu_s(working) >= 0.35


def test_a_peak_is_what_was_and_begins_anew(working: int) -> None:
    before = processes.peak_mib(working)
    processes.reset_peak(working)

    assert before >= processes.rss_mib(working) + 100
    assert processes.peak_mib(working) == pytest.approx(processes.rss_mib(working), abs=8)


@pytest.mark.parametrize(
    ("cores", "sentence"),
    [
        (
            Cores(frozenset({0}), frozenset({1})),
            "server on core 0, database and load generator on core 1",
        ),
        (Cores(frozenset({0}), frozenset({0})), "one core for everything, so nothing is pinned"),
    ],
    ids=["two", "one"],
)
def test_the_cores_say_who_has_which(cores: Any, sentence: str) -> None:
    assert cores.sentence() == sentence


def test_the_machine_and_the_versions_are_named() -> None:
    assert f"{os.cpu_count()} cores" in describe()
    assert {"Python", "starlette", "sqlalchemy", "asyncmy", "uvicorn"} <= versions().keys()
