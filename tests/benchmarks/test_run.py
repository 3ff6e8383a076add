"""A whole run, as short as possible, of the peers that need no extra."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.document import DOCUMENT, ROOT
from benchmarks.figures import Run
from tests.mariadb import require_or_skip


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it in a separate process, because it binds itself to one core."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.mariadb
def test_a_short_run_measures_in_turns_and_prints_its_tables(tmp_path: Path) -> None:
    require_or_skip()
    if not shutil.which("wrk"):
        pytest.importorskip("geventhttpclient", reason="without wrk a run needs the extra `bench`")
    before = DOCUMENT.read_text()

    done = bench(
        *("run", "peers", "--rounds", "1", "--seconds", "0.5", "--results", str(tmp_path)),
        *("--jobs", "create", "--peers", "latchkey,bare_asgi"),
    )

    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("peers-*.json")
    run = msgspec.json.decode(file.read_bytes(), type=Run)
    assert [(one.contestant, one.round) for one in run.measurements] == [
        ("Latchkey", 1),
        ("bare function without a database", 1),
    ]
    for one in run.measurements:
        assert one.rps > 0
        assert one.cpu_ms > 0
        assert one.peak_mib > 20
    latchkey, bare = run.measurements
    assert latchkey.database_cpu_ms > bare.database_cpu_ms
    assert latchkey.cpu_ms > bare.cpu_ms
    assert "| Latchkey |" in done.stdout
    assert "not measured" in done.stdout  # of the targets of other jobs
    assert DOCUMENT.read_text() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "peers", "--jobs", "raed"), "raed is not among read, cached"),
        (("run", "growth", "--peers", "django"), "django is not among latchkey"),
        (("run", "everything"), "'everything' is not one of 'peers', 'own', 'growth'"),
    ],
    ids=["job", "peer", "kind"],
)
def test_unknown_names_are_refused_before_anything_starts(words: tuple[str, ...], said: str) -> None:
    done = bench(*words)

    assert done.returncode == 2
    assert said in done.stderr
