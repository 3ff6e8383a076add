"""A private Galera cluster: MariaDB nodes of the suite, on one machine.

    with PrivateGalera() as cluster:
        first, second, third = cluster.nodes
        first.create_database("rows")  # on every node

It needs `galera-4` and `rsync` in addition to `mariadb-server`. A joining node copies its rows from another one with
rsync, whose daemon writes as nobody when it runs as root; therefore root starts the nodes as the user of the package.
"""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from benchmarks.ports import free_port
from tests.mariadb import PrivateMariaDB, find_program, require_or_skip

REQUIRE = "LATCHKEY_TEST_GALERA"
LIBRARIES = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
MISSING = "Galera not found: apt-get install galera-4 rsync mariadb-server (Debian, Ubuntu)"
USER = "mysql"

JOINING_TIMEOUT_S = 60


def is_chosen() -> bool:
    """Return whether tests that need a cluster were requested."""
    return os.environ.get(REQUIRE) == "1"


def require() -> Path:
    """Return the path of Galera's library; fail the test if it is missing, because the test was requested."""
    require_or_skip()
    found = next((Path(one) for one in LIBRARIES if Path(one).exists()), None)
    if found is None or find_program("rsync") is None:
        pytest.fail(MISSING, pytrace=False)
    return found


class GaleraNode(PrivateMariaDB):
    """One node; without another node it founds the cluster.

    The founder must not be started again, because it would found another cluster.
    """

    def __init__(self, number: int, others: Sequence["GaleraNode"] = ()) -> None:
        super().__init__()
        self.number = number
        self.others = others
        self.group_port = free_port()
        self._transfer_ports = (free_port(), free_port())
        if others:
            self._password = others[0]._password
        self._temporary.mkdir()
        if os.geteuid() == 0:
            for folder in (self._folder, self._temporary):
                shutil.chown(folder, USER)

    def start(self) -> None:
        """Start the node, and return when it is part of the cluster."""
        if not self.others:
            super().start()
            return
        if self.port is None:
            self._install()
            self.port = free_port()
        self._launch(self.port)

    def status(self, name: str) -> str:
        """Return one of the node's status variables."""
        return self.execute(f"SHOW STATUS LIKE '{name}'").rpartition("\t")[2].strip()

    def wait_for(self, name: str, value: str) -> None:
        """Wait until a status variable has a value."""
        deadline = time.monotonic() + JOINING_TIMEOUT_S
        while self.status(name) != value:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"node {self.number}: {name} is {self.status(name)!r}, not {value!r}:\n"
                    f"{self._log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(0.05)

    def _as_user(self) -> list[str]:
        return [] if os.geteuid() else [f"--user={USER}"]

    def _launch(self, port: int) -> None:
        super()._launch(port)
        self.wait_for("wsrep_local_state_comment", "Synced")

    def _serving(self) -> list[str]:
        incremental, whole = self._transfer_ports
        options = [
            f"gmcast.listen_addr=tcp://127.0.0.1:{self.group_port}",
            f"ist.recv_addr=127.0.0.1:{incremental}",
            # The cluster detects a dead node within two seconds.
            "evs.keepalive_period=PT0.25S",
            "evs.inactive_check_period=PT0.25S",
            "evs.suspect_timeout=PT1S",
            "evs.inactive_timeout=PT2S",
            "evs.install_timeout=PT2S",
            "gcache.size=16M",
        ]
        members = ",".join(f"127.0.0.1:{other.group_port}" for other in self.others)
        return [
            *super()._serving(),
            "--wsrep-on=ON",
            f"--wsrep-provider={require()}",
            f"--wsrep-provider-options={';'.join(options)}",
            f"--wsrep-cluster-address=gcomm://{members}",
            f"--wsrep-node-address=127.0.0.1:{self.group_port}",
            f"--wsrep-node-incoming-address=127.0.0.1:{self.port or 0}",
            f"--wsrep-sst-receive-address=127.0.0.1:{whole}",
            "--wsrep-sst-method=rsync",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--innodb-buffer-pool-size=32M",
        ]


class PrivateGalera:
    """A cluster of nodes; a `with` block."""

    def __init__(self, size: int = 3) -> None:
        self.nodes: list[GaleraNode] = []
        for number in range(size):
            self.nodes.append(GaleraNode(number, tuple(self.nodes)))
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as running:
            for node in self.nodes:
                running.enter_context(node)
            self.nodes[0].wait_for("wsrep_cluster_size", str(len(self.nodes)))
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
