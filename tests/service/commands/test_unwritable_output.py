"""A command whose output cannot be written fails with a sentence, and blames nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from latchkey.service.settings import Settings

COMMANDS = [
    pytest.param(("users", "list"), id="a table"),
    pytest.param(("keyring",), id="a secret"),
    pytest.param(("openapi",), id="a long text"),
    pytest.param(("--help",), id="the help"),
]


def in_shell(folder: Path, line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$@" {line}', "bash", sys.executable, "-m", "latchkey", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize(
    "line, reason",
    [(">/dev/full", "No space left on device"), (">&-", "it is closed")],
    ids=["full", "closed"],
)
def test_a_result_that_cannot_be_written_is_an_error(
    migrated_sqlite: Settings, tmp_path: Path, arguments: tuple[str, ...], line: str, reason: str
) -> None:
    done = in_shell(tmp_path, line, *arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: standard output cannot be written: {reason}. What the command changed is stored nevertheless.\n"
    )


@pytest.mark.parametrize("line", ["2>/dev/full", "2>&-"])
def test_a_message_that_cannot_be_written_is_dropped(
    migrated_sqlite: Settings, tmp_path: Path, line: str
) -> None:
    """`migrate` prints a message only, and `users list` a result only."""
    for arguments, output in {("migrate",): 0, ("users", "list"): 1}.items():
        done = in_shell(tmp_path, line, *arguments)

        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", output)


def test_a_reader_that_leaves_is_no_error_message(migrated_sqlite: Settings, tmp_path: Path) -> None:
    done = in_shell(tmp_path, "| true; exit ${PIPESTATUS[0]}", "openapi")

    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_closed_output_is_no_file_of_the_database(migrated_sqlite: Settings, tmp_path: Path) -> None:
    done = in_shell(tmp_path, ">&- 2>&-", "users", "create", "--email", "a@b.c", "--name", "A")
    listed = in_shell(tmp_path, "", "users", "list")

    assert done.returncode == 1
    assert "a@b.c" in listed.stdout
