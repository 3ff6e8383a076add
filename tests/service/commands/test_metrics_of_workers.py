"""A scrape of any worker shows what all of them counted, and what an ended one counted before."""

import os
import signal
import time
import urllib.request
from pathlib import Path

from latchkey.service.settings import Settings
from tests.processes import Served
from tests.service.commands.running import Run, answered, good
from tests.service.metrics.test_metrics import samples_of

WORKERS, CALLS = 4, 60
COUNTED = "latchkey_requests_total{route=GET /livez,status=200}"


def test_a_scrape_over_four_workers_equals_the_calls(
    migrated_sqlite: Settings, run: Run, tmp_path: Path
) -> None:
    good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
    options = ("--name", "prometheus", "--mode", "bearer", "--scopes", "metrics:read", "--json")
    secret = answered(run("keys", "create", "--user", "1", *options))["secret"]

    with Served(tmp_path, "serve", "--workers", str(WORKERS)) as served:

        def scrape() -> dict[str, float]:
            asked = urllib.request.Request(
                f"{served.url}/metrics", headers={"authorization": f"Bearer {secret}"}
            )
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return samples_of(answer.read())

        while served.err.read_text().count("Application startup complete.") < WORKERS:
            time.sleep(0.05)
        for _ in range(CALLS):  # each on a new connection, which any worker accepts
            urllib.request.urlopen(f"{served.url}/livez", timeout=30).close()
        first = scrape()
        worker = next(
            int(line.rpartition("[")[2].partition("]")[0])
            for line in served.err.read_text().splitlines()
            if "Started server process" in line
        )
        os.kill(worker, signal.SIGKILL)
        urllib.request.urlopen(f"{served.url}/livez", timeout=30).close()
        second = scrape()

    assert first[COUNTED] == CALLS
    assert first["latchkey_pool_size{pool=writer}"] == WORKERS * migrated_sqlite.pool_size
    assert second[COUNTED] == CALLS + 1
