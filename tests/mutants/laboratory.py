"""A run of pytest that collects the tests once, and tries each mutant in a process of its own.

A child process changes the code of one function in place, so that neither imports nor the collection are repeated.
"""

import contextlib
import gc
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType

import msgspec
import pytest

from tests.mutants.changes import Mutant, Mutator, marked, modules_of, with_inner

TEST_TIMEOUT_S = 60  # a test that takes longer fails
RUN_TIMEOUT_S = 900
PASSED_PERCENT = 95
FAILED = 1


class Plan(msgspec.Struct):
    """What to try: `again` names mutants in place of a draw, `known` is the file that keeps the run without a mutant."""

    modules: Sequence[str]
    count: int
    seed: int
    jobs: int
    again: Path | None = None
    known: Path | None = None


class Passage(msgspec.Struct):
    """The run of a test without a mutant: its time, and the statements that it passed, by module."""

    seconds: float = 0.0
    failed: bool = False
    lines: dict[str, set[int]] = {}


class Laboratory:
    """A plugin of pytest that replaces its loop over the tests."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.modules = modules_of(plan.modules)
        self.passages: dict[str, Passage] = {}
        self.survivors: list[Mutant] = []
        self.functions: dict[tuple[str, int], list[FunctionType]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the mutants."""
        self.functions = functions_in_memory(self.modules)
        mutants = self.draw()
        self.read_or_make_passages(session.items)
        running: dict[int, tuple[Mutant, float, int]] = {}
        done = 0
        while mutants or running:
            while mutants and len(running) < self.plan.jobs:
                mutant = mutants.pop()
                read_end, write_end = os.pipe()
                child = fork(partial(self.examine, mutant, session, write_end))
                os.close(write_end)
                running[child] = (mutant, time.monotonic(), read_end)
            child = wait_for_one({child: began for child, (_, began, _) in running.items()})
            mutant, began, read_end = running.pop(child)
            with os.fdopen(read_end, encoding="utf-8") as pipe:
                said = pipe.read()
            done += 1
            survived = said == "survived"
            if survived:
                self.survivors.append(mutant)
            killer = "SURVIVED" if survived else f"killed by {said or 'a crash or a time limit'}"
            report(f"{done:4} {time.monotonic() - began:6.1f} s  {mutant}  {killer}")
        percent = 100 * (1 - len(self.survivors) / max(done, 1))
        report(f"\n{percent:.1f} % of {done} mutants were killed, --seed {self.plan.seed}. Survivors:")
        report("\n".join(sorted(map(str, self.survivors))) or "none")
        session.testsfailed = int(percent < PASSED_PERCENT)
        return True

    def draw(self) -> list[Mutant]:
        """Return the mutants to try."""
        everything = [
            mutant for module in self.modules for mutant in Mutator(module).mutants() if self.fits(mutant)
        ]
        if self.plan.again is not None:
            wanted = self.plan.again.read_text()
            drawn = [mutant for mutant in everything if str(mutant) in wanted]
        else:
            drawn = random.Random(self.plan.seed).sample(everything, min(self.plan.count, len(everything)))
        report(f"{len(drawn)} of {len(everything)} mutants, --seed {self.plan.seed}")
        return drawn

    def fits(self, mutant: Mutant) -> bool:
        """Return whether the code can be changed in place: a function keeps the variables that it closes over."""
        functions = self.functions.get((mutant.module, mutant.function), [])
        return bool(functions) and all(
            one.__code__.co_freevars == mutant.code().co_freevars for one in functions
        )

    def swap(self, module: str, function: int, code: CodeType) -> None:
        """Change the code of a function in place, and that of the functions inside it that exist, such as wrappers."""
        for inner in with_inner(code):
            for one in self.functions.get((module, inner.co_firstlineno), []):
                if (one.__code__.co_name, one.__code__.co_freevars) == (inner.co_name, inner.co_freevars):
                    one.__code__ = inner

    # ------------------------------------------------------------------ the run without a mutant

    def read_or_make_passages(self, items: list[pytest.Item]) -> None:
        """Find out which tests pass which statements; a test that fails without a mutant is left out and reported."""
        known = self.plan.known
        if known is not None and known.exists():
            self.passages = msgspec.json.decode(known.read_bytes(), type=dict[str, Passage])
        if added := [item for item in items if item.nodeid not in self.passages]:
            read_end, write_end = os.pipe()
            child = fork(partial(self.record, added, write_end))
            os.close(write_end)
            with os.fdopen(read_end, "rb") as pipe:
                self.passages |= msgspec.json.decode(pipe.read(), type=dict[str, Passage])
            wait_for_one({child: time.monotonic()})
            if known is not None:
                known.write_bytes(msgspec.json.encode(self.passages))
        failed = [name for name, passage in self.passages.items() if passage.failed]
        if failed:
            report(f"left out, because they fail without a mutant: {failed}")

    def record(self, items: list[pytest.Item], end: int) -> None:
        """Run all tests with marked functions, and write what each of them passes."""
        passage = Passage(lines={})
        for module in self.modules:
            for function, code in marked(module).items():
                for one in self.functions.get((module, function), []):
                    one.__globals__["_pass"] = lambda line, module=module: passage.lines.setdefault(
                        module, set()
                    ).add(line)
                self.swap(module, function, code)
        found: dict[str, Passage] = {}

        def note(item: pytest.Item, seconds: float, failed: bool) -> bool:
            nonlocal passage
            passage.seconds, passage.failed = seconds, failed
            found[item.nodeid] = passage
            passage = Passage(lines={})
            return True

        run(items, note)
        with os.fdopen(end, "wb", closefd=False) as pipe:
            pipe.write(msgspec.json.encode(found))

    # ------------------------------------------------------------------ a mutant

    def examine(self, mutant: Mutant, session: pytest.Session, end: int) -> None:
        """Run the tests that pass the changed statement, and write the name of the first that fails."""
        self.swap(mutant.module, mutant.function, mutant.code())
        killer = run(self.in_order(mutant, session.items))
        os.write(end, (killer or "survived").encode())

    def in_order(self, mutant: Mutant, items: list[pytest.Item]) -> list[pytest.Item]:
        """Return the tests that pass the changed statement, the shortest first, and those on SQLite before others."""

        def passes(item: pytest.Item) -> bool:
            passage = self.passages[item.nodeid]
            return not passage.failed and mutant.statement in passage.lines.get(mutant.module, ())

        def effort(item: pytest.Item) -> tuple[bool, float]:
            return needs_server(item), self.passages[item.nodeid].seconds

        return sorted(filter(passes, items), key=effort)


def needs_server(item: pytest.Item) -> bool:
    return item.get_closest_marker("mariadb") is not None


def functions_in_memory(modules: Sequence[str]) -> dict[tuple[str, int], list[FunctionType]]:
    """Return the functions of the modules by module and first line."""
    found: dict[tuple[str, int], list[FunctionType]] = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType):
            file = one.__code__.co_filename
            for module in modules:
                if file.endswith(f"/latchkey/{module}"):
                    found.setdefault((module, one.__code__.co_firstlineno), []).append(one)
    return found


def stop_at_a_failure(_item: pytest.Item, _seconds: float, failed: bool) -> bool:
    return not failed


def run(
    items: list[pytest.Item], note: Callable[[pytest.Item, float, bool], bool] = stop_at_a_failure
) -> str | None:
    """Run tests until `note` returns False, and return the name of the last one then.

    `note` gets each test with its time in seconds, and whether it failed.
    """
    for item, following in zip_longest(items, items[1:]):
        began = time.monotonic()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        failed, item.session.testsfailed = bool(item.session.testsfailed), 0
        if not note(item, time.monotonic() - began, failed):
            with contextlib.suppress(Exception):
                item.session._setupstate.teardown_exact(None)
            return item.nodeid
    return None


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child process with a process group of its own, and return its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgrp()
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        work()
    finally:
        os._exit(0)


def wait_for_one(began: dict[int, float]) -> int:
    """Wait until a child ends, or has run for too long, and return its id; its servers end with it."""
    while True:
        for child, start in began.items():
            if os.waitpid(child, os.WNOHANG)[0]:
                end_group(child)
                return child
            if time.monotonic() - start > RUN_TIMEOUT_S:
                end_group(child)
                os.waitpid(child, 0)
                return child
        time.sleep(0.05)


def end_group(leader: int) -> None:
    """Kill what is left of a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def report(text: str) -> None:
    """Write to the terminal, past the capturing of pytest."""
    sys.__stdout__.write(f"{text}\n")
    sys.__stdout__.flush()
