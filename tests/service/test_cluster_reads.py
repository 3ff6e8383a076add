"""The sessions of a Galera cluster wait for commits of other nodes; `tests/server/test_galera.py` runs such a cluster."""

import logging
from collections.abc import Callable

import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from latchkey.service.database import cluster, driver
from tests.conftest import on_mariadb


@pytest.fixture
def told(log_lines: list[logging.LogRecord]) -> Callable[[], list[str]]:
    return lambda: [line.getMessage() for line in log_lines if line.levelname == "WARNING"]


async def test_a_server_that_is_no_cluster_is_not_warned_of(
    app: Starlette, told: Callable[[], list[str]]
) -> None:
    await cluster.warn_of_stale_reads(app.state.db.reader)

    assert told() == []


@on_mariadb
@pytest.mark.parametrize("waits, warnings", [(0, 1), (2, 1), (1, 0), (7, 0)])
async def test_a_cluster_is_warned_of_unless_reads_wait(
    app: Starlette, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, waits: int, warnings: int
) -> None:
    monkeypatch.setattr(cluster, "_ASK", text(f"SELECT 1, {waits}"))

    await cluster.warn_of_stale_reads(app.state.db.reader)

    assert len(told()) == warnings
    assert all(f"wsrep_sync_wait is {waits}" in line for line in told())


@on_mariadb
async def test_a_server_without_the_variable_is_connected_to_as_any_other(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "WAIT_FOR_CLUSTER", "SET SESSION not_a_variable = 1")

    async with app.state.db.reader.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


@on_mariadb
async def test_any_other_error_of_it_is_not_hidden(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "WAIT_FOR_CLUSTER", "SELEKT")

    with pytest.raises(Exception, match="1064"):
        async with app.state.db.reader.connect():
            pass
