"""The text of a scrape: the metrics of this process, or those of all workers, added up.

The workers of `latchkey serve` keep their metrics in files of one folder, as the library of Prometheus does it, so that any
of them answers for all. What a worker counted stays when it ends.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class Stored(Collector):
    """What the database says about all workers.

    Args:
        keys_expiring: the number of active keys that expire soon.
        outbox_age_s: the age of the oldest event that waits for its delivery, in seconds; 0 if none waits.
    """

    def __init__(self, *, keys_expiring: int, outbox_age_s: float) -> None:
        self.keys_expiring = keys_expiring
        self.outbox_age_s = outbox_age_s

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield GaugeMetricFamily(
            "latchkey_keys_expiring", "Active keys that expire within 30 days.", self.keys_expiring
        )
        yield GaugeMetricFamily(
            "latchkey_outbox_age_seconds",
            "The age of the oldest event that waits for its delivery to a webhook.",
            self.outbox_age_s,
        )


def render(own: CollectorRegistry, stored: Stored) -> bytes:
    """Return the text for a scrape."""
    shown = CollectorRegistry()
    shown.register(stored)
    if values.ValueClass is values.MutexValue:
        return generate_latest(own) + generate_latest(shown)
    folder = os.environ[FOLDER_VARIABLE]
    forget_ended_workers(Path(folder))
    MultiProcessCollector(shown, folder)  # type: ignore[no-untyped-call]  # the library types a part of itself
    return generate_latest(shown)


def forget_ended_workers(folder: Path) -> None:
    """Delete the gauges of processes that have ended, whose sessions and connections are gone."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            with suppress(FileNotFoundError):  # another worker deleted it
                file.unlink()


@contextmanager
def shared_between_workers() -> Iterator[None]:
    """Let the workers that are started in the block add up their metrics, in a folder that the operator may name."""
    if os.environ.get(FOLDER_VARIABLE):
        yield
        return
    with TemporaryDirectory(prefix="latchkey-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]
