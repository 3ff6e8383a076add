"""Faults of real servers under load: nothing acknowledged is lost, nothing is done twice, and every answer comes in time.

The suite runs a few of the faults; `make test-faults` runs all of them and writes the table of `docs/reliability.md`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.faults.process_faults  # noqa: F401 - it adds its faults
from tests.faults.deployment import BUDGET_S, SETTLING_S, Result, run_fault
from tests.faults.faults import FAULTS, Fault
from tests.faults.servers import ReplicatingMariaDB
from tests.faults.table import write_table
from tests.mariadb import require_or_skip

pytestmark = pytest.mark.mariadb

RUNS_ALL = os.environ.get("LATCHKEY_TEST_FAULTS") == "all"
SLACK_S = 1.0
ALLOWED = {"200", "201", "503 unavailable", "500 commit_unknown", "409 idempotency_in_progress"}


@pytest.fixture(scope="module")
def server() -> Iterator[ReplicatingMariaDB]:
    """Return a server that belongs to these tests, because they kill it."""
    require_or_skip()
    with ReplicatingMariaDB(1) as server:
        yield server


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return []


@pytest.mark.parametrize(
    "fault", [pytest.param(one, id=one.name) for one in FAULTS if RUNS_ALL or one.is_short]
)
async def test_a_fault_costs_no_acknowledged_write(
    fault: Fault, server: ReplicatingMariaDB, results: list[Result], tmp_path: Path
) -> None:
    result = await run_fault(fault.name, fault.inject, server, tmp_path, prepare=fault.prepare)
    results.append(result)
    if RUNS_ALL:
        write_table(results)

    allowed = ALLOWED | ({"no answer"} if fault.ends_process else set())
    assert result.log_errors == []
    assert (result.lost, result.doubled, result.leaked) == (0, 0, 0)
    assert set(result.outcomes) <= allowed
    assert result.slowest_s < BUDGET_S + SLACK_S
    assert result.recovered_s < SETTLING_S
    assert result.acknowledged
